"""Rules for every file that a tool has no setting for: sizes, names, and that imports do nothing.

Which module may import which is import-linter's business (`make check`).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.modules import PACKAGES, REPOSITORY, module_names, source_files

MODULE_LINES_MAX = 400
TEST_MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

#: Names under which anything at all would find a place.
VAGUE_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})


def lines_of(path: Path) -> int:
    return len((REPOSITORY / path).read_text(encoding="utf-8").splitlines())


def own_files() -> list[Path]:
    return sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "tests").rglob("*.py"))


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            yield f"{path}: {node.name}", node.end_lineno - node.lineno + 1


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    assert not {path for path in source_files() if lines_of(path) > MODULE_LINES_MAX}


def test_no_test_module_is_too_long() -> None:
    assert not {path for path in own_files() if lines_of(path) > TEST_MODULE_LINES_MAX}


def test_no_function_is_too_long() -> None:
    lengths = dict(found for path in source_files() for found in functions_of(path))

    assert not {name for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX}


def test_every_module_is_named_for_its_one_purpose() -> None:
    paths = [*source_files(), *own_files()]

    assert not [path for path in paths if VAGUE_NAMES & {path.stem, *path.parts[:-1]}]


def test_every_package_says_what_it_is() -> None:
    packages = {path.parent for path in source_files()}

    assert not [p for p in packages if not (REPOSITORY / p / "__init__.py").exists()]


#: Imports everything while it is an error to reach out: to the network, a process, a file.
IMPORT_ALL = """
import importlib, sys

FORBIDDEN = ("socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.", "os.fork",
             "os.exec", "os.posix_spawn", "os.mkdir", "os.remove", "os.rename")

def refuse(event, arguments):
    if event.startswith(FORBIDDEN):
        raise AssertionError(f"importing did {event} {arguments}")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        raise AssertionError(f"importing opened {arguments[0]} for writing")

sys.dont_write_bytecode = True
sys.addaudithook(refuse)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_module_needs_no_environment_and_does_nothing(package: str) -> None:
    names = [name for name in module_names() if name.split(".")[0] == package]

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL, *names],
        cwd=REPOSITORY,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_that_is_started_strips_its_assertions() -> None:
    """Assertions state what only our own mistake can break; a stripped one would let it pass."""
    started = [
        *(REPOSITORY / "deploy").rglob("*"),
        *(REPOSITORY / ".ci").rglob("*"),
        REPOSITORY / "Makefile",
    ]
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in started
        if path.is_file() and path.suffix != ".pyc"
    }

    assert not [p for p, text in texts.items() if "PYTHONOPTIMIZE" in text or "python -O" in text]
