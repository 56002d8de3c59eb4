"""Every module that is deployed, found by its file."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

PACKAGES = ("services", "shared", "deploy")


def source_files() -> list[Path]:
    """Return the Python files of the deployed packages, relative to the repository."""
    return sorted(
        path.relative_to(REPOSITORY)
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
    )


def module_names() -> list[str]:
    """Return the dotted names of the deployed modules, but those that are run as programs."""
    return [
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in source_files()
        if path.name != "__main__.py"
    ]
