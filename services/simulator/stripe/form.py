"""Forms with brackets: `metadata[reference]=x&expand[]=latest_charge`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from services.simulator.stripe.errors import ApiError, bad_request

FIELDS_MAX: Final = 200
DEPTH_MAX: Final = 6

#: What a name leads to: a text, or more names below it. A list has its positions as names.
Tree: TypeAlias = "dict[str, str | Tree]"

_NAME: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_BRACKET: Final = re.compile(r"\[([^\[\]]*)\]")


def parse_form(text: str) -> Tree:
    """Read a form or a query string.

    Raises:
        ApiError: it has too many fields, or one that contradicts another.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise bad_request("Too many parameters.") from None
    tree: Tree = {}
    for name, value in pairs:
        _insert(tree, name, value)
    return tree


def _insert(tree: Tree, name: str, value: str) -> None:
    found = _NAME.fullmatch(name)
    if found is None or "\0" in name or "\0" in value:
        raise _invalid(name)
    steps = [found.group(1), *_BRACKET.findall(found.group(2))]
    if len(steps) > DEPTH_MAX:
        raise _invalid(name)
    node = tree
    for step in steps[:-1]:
        below = node.setdefault(step or str(len(node)), {})
        if isinstance(below, str):
            raise _invalid(name)
        node = below
    last = steps[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        raise _invalid(name)
    node[last] = value


def _invalid(name: str) -> ApiError:
    return bad_request("Invalid request parameters.", param=name[:100])


def flatten(tree: Mapping[str, str | Tree], path: str = "") -> dict[str, str]:
    """Return every text by its full name, for comparing two forms whatever their order."""
    flat: dict[str, str] = {}
    for name, node in tree.items():
        full = f"{path}[{name}]" if path else name
        if isinstance(node, str):
            flat[full] = node
        else:
            flat |= flatten(node, full)
    return flat
