"""Copies of Sluice in which one guard is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.modules import PACKAGES, REPOSITORY
from tests.support.supervised_stack import BARE


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one file; `before` must occur in it exactly once."""

    path: str
    before: str
    after: str
    #: Another guard, which would stop what this one lets through.
    behind_it: Mutation | None = None


RESEND = Mutation(
    "shared/messaging/relay.py",
    "        items = await outbox.claim_due(connection, BATCH_SIZE_MAX)\n",
    "        items = (await outbox.claim_due(connection, BATCH_SIZE_MAX))[:0]\n",
)

ENROLLMENT_UNIQUE = Mutation(
    "services/enrollment/migrations/0001_create_enrollment.sql",
    ",\n    CONSTRAINT enrollment_once_per_product UNIQUE (customer_id, product_id)"
    ",\n    CONSTRAINT enrollment_once_per_payment UNIQUE (payment_id)\n",
    "\n",
)

EVENT_UNIQUE = Mutation(
    "services/webhook/migrations/0001_create_inbound_event.sql",
    ",\n    PRIMARY KEY (gateway, event_key, event_day)\n",
    "\n",
)

STATE_TRIGGER = Mutation(
    "services/payments/migrations/0003_engine.sql",
    "    WHEN (OLD.state IS DISTINCT FROM NEW.state AND NOT CASE OLD.state\n",
    "    WHEN (false AND NOT CASE OLD.state\n",
)

LEDGER_ONCE = Mutation(
    "services/payments/migrations/0007_ledger.sql",
    "    PRIMARY KEY (payment_id, kind, occasion),\n",
    "",
)

VERSION = Mutation(
    "services/payments/store/payments.py",
    "         WHERE payment.id = change.id\n           AND payment.version = change.version\n",
    "         WHERE payment.id = change.id\n",
    behind_it=LEDGER_ONCE,
)

ACKNOWLEDGE_AFTER_COMMIT = Mutation(
    "services/webhook/handlers.py",
    "        await runtime.inbox.submit(event)\n",
    "        runtime.inbox.submit(event)\n",
)

RECEIPT_AFTER_COMMIT = Mutation(
    "shared/messaging/receiver.py",
    "            self._in_hand[sender, item.id] = delivery\n",
    "            self._in_hand[sender, item.id] = delivery\n"
    "            self._publisher.confirm(sender, item.id)\n",
)

OUTCOME_ONCE = Mutation(
    "services/scheduler/domain/outcomes.py",
    "    if job.status is JobStatus.COMPLETED:\n        return None\n",
    "",
)

ACCESS_SEQUENCE = Mutation(
    "services/enrollment/domain/access.py",
    "access.sequence > before.sequence",
    "access.sequence > 0",
    behind_it=Mutation(
        "services/enrollment/store/access.py",
        "       AND subscription_access.sequence < given.sequence\n",
        "",
    ),
)

CANCELLED_UNHEARD = Mutation(
    "services/payments/store/charges.py",
    "    INSERT INTO charge_order (payment_id, subscription_id, ordered_at, cancelled_at)\n"
    "    VALUES ($1, $2, $3, $3)\n"
    "        ON CONFLICT (payment_id) DO NOTHING\n"
    " RETURNING payment_id\n",
    "    SELECT $1::text AS payment_id, $2::text, $3::timestamptz\n",
)

CYCLE_ONCE = Mutation(
    "services/scheduler/migrations/0001_create_subscription.sql",
    "    PRIMARY KEY (subscription_id, period_start),\n",
    "",
)

SUBSCRIPTION_VERSION = Mutation(
    "services/scheduler/store/moves.py",
    "     WHERE subscription.id = new.id\n       AND subscription.version = new.version\n",
    "     WHERE subscription.id = new.id\n",
    behind_it=CYCLE_ONCE,
)

CLAIMED_ONCE = Mutation(
    "services/scheduler/store/due.py",
    "     LIMIT $4\n       FOR NO KEY UPDATE SKIP LOCKED\n",
    "     LIMIT $4\n",
    behind_it=SUBSCRIPTION_VERSION,
)


def copy_without(mutation: Mutation, directory: Path, *more: str) -> dict[str, str]:
    """Copy Sluice without one guard and return the environment in which Python imports the copy.

    Args:
        mutation: What to change.
        directory: An empty one.
        more: What to copy beside the packages.
    """
    for name in (*PACKAGES, *more):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, directory / name)
        else:
            shutil.copy2(source, directory / name)
    _apply(mutation, directory)
    # Else the working directory would go first.
    environment = {**BARE, "PYTHONPATH": str(directory), "PYTHONSAFEPATH": "1"}
    imported = subprocess.run(
        [sys.executable, "-c", "import deploy, services, shared; print(shared.__path__[0])"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(imported.stdout.strip()) == directory / "shared"
    return environment


def _apply(mutation: Mutation, directory: Path) -> None:
    path = directory / mutation.path
    text = path.read_text(encoding="utf-8")
    found = text.count(mutation.before)
    assert found == 1, f"{mutation.path} has {found} places to change: adapt the mutation"
    path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
    if mutation.behind_it is not None:
        _apply(mutation.behind_it, directory)
