"""JSON Schema snapshots of every message version; a test compares them with the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from shared.contracts.subscriptions import MESSAGES

DIRECTORY: Final = Path(__file__).resolve().parent / "schemas"


def render(name: str) -> str:
    """Return the JSON Schema of a message as stored in its snapshot."""
    schema = MESSAGES[name].model_json_schema(by_alias=True)
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write the snapshot of every message. A released version must not change: make a new one."""
    DIRECTORY.mkdir(exist_ok=True)
    for name in MESSAGES:
        (DIRECTORY / f"{name}.json").write_text(render(name), encoding="utf-8")


if __name__ == "__main__":
    main()
