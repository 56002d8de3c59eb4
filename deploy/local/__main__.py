"""`python -m deploy.local` is the command `sluice`."""

from __future__ import annotations

import sys

from deploy.local.command import main

sys.exit(main())
