"""Which named set of limits is in force: by schedule or by load, and back, without flapping."""

from __future__ import annotations

from typing import Final

#: The profile that is in force when no other one is.
NORMAL: Final = "normal"
