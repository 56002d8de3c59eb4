"""What is between the services: queues, outboxes, Redis."""

from __future__ import annotations

from typing import Final

from deploy.grafana.expressions import (
    in_view,
    or_zero,
    per_second,
    quantile,
    select,
    share,
    told_by_each,
)
from deploy.grafana.panels import (
    GREEN,
    ORANGE,
    RED,
    Choice,
    Dashboard,
    Query,
    Section,
    bars,
    graph,
    heatmap,
    number,
)

_CHOSEN: Final = 'queue=~"$queue"'
_READY: Final = f'{_CHOSEN},state="ready"'
_IN_FLIGHT: Final = f'{_CHOSEN},state="in_flight"'
_DELAYED: Final = f'{_CHOSEN},state="delayed"'
_DEAD: Final = f'{_CHOSEN},state="dead"'
_PARKED: Final = 'state="parked"'

_NOW: Final = Section(
    "Now",
    (
        number(
            "Ready",
            "Messages that nobody has taken.",
            f"sum({told_by_each('queue_messages', _READY, by='queue')})",
            "short",
            thresholds=[(1_000, ORANGE)],
        ),
        number(
            "Oldest ready",
            "Its age (docs/runbooks/queue-not-draining.md).",
            f"max({select('queue_oldest_age_seconds', _CHOSEN)})",
            "s",
            thresholds=[(15, ORANGE), (60, RED)],
        ),
        number(
            "Given up by Dramatiq",
            "Bodies in its dead letter queues. The outboxes send their messages again; "
            "`sluice purge` clears them.",
            f"sum({told_by_each('queue_messages', _DEAD, by='queue')})",
            "short",
            thresholds=[(1, ORANGE)],
        ),
        number(
            "Oldest unconfirmed",
            "Over all outboxes (docs/runbooks/outbox-not-draining.md).",
            f"max({select('outbox_oldest_age_seconds')})",
            "s",
            thresholds=[(60, ORANGE), (300, RED)],
        ),
        number(
            "Parked",
            "Sent too often in vain: they wait for an operator (docs/runbooks/messages-parked.md).",
            f"sum({told_by_each('outbox_messages', _PARKED, by='service')})",
            "short",
            thresholds=[(1, RED)],
        ),
        number(
            "Publications that failed",
            "In the time shown. Redis was away; the outbox sends them "
            "(docs/runbooks/servers-away.md).",
            or_zero(in_view("messages_publications_failed_total")),
            "short",
            thresholds=[(1, ORANGE)],
        ),
    ),
)

_QUEUES: Final = Section(
    "Queues",
    (
        graph(
            "Ready messages",
            "What autoscaling looks at. A short rise is a burst; a long one is too few workers.",
            [Query(told_by_each("queue_messages", _READY, by="queue"), "{{queue}}")],
            "short",
            width=8,
        ),
        graph(
            "Age of the oldest ready message",
            "Autoscaling looks at this, too.",
            [Query(f"max by (queue) ({select('queue_oldest_age_seconds', _CHOSEN)})", "{{queue}}")],
            "s",
            thresholds=[(60, RED)],
            width=8,
        ),
        graph(
            "In flight and delayed",
            "With a worker, and waiting for redelivery by Dramatiq.",
            [
                Query(
                    told_by_each("queue_messages", _IN_FLIGHT, by="queue"), "{{queue}} in flight"
                ),
                Query(told_by_each("queue_messages", _DELAYED, by="queue"), "{{queue}} delayed"),
            ],
            "short",
            width=8,
        ),
        graph(
            "Published",
            "Messages put on each queue, resends included.",
            [Query(per_second("messages_published_total", _CHOSEN, by="queue"), "{{queue}}")],
            "ops",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Wait in the queue (p99)",
            "From the publication of a batch to its admission by a worker.",
            [Query(quantile(0.99, "message_queue_wait_seconds", _CHOSEN, by="queue"), "{{queue}}")],
            "s",
            thresholds=[(5, RED)],
            width=8,
        ),
        heatmap(
            "Wait in the queue, how many batches waited how long",
            "All chosen queues.",
            "message_queue_wait_seconds",
            _CHOSEN,
            width=8,
        ),
    ),
)

_HANDLING: Final = Section(
    "Handling",
    (
        graph(
            "Handled, by message",
            "All ends together.",
            [Query(per_second("messages_handled_total", by="message"), "{{message}}")],
            "ops",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Handled, by end",
            "`duplicate` came again while in hand; `dead` waits for an operator "
            "(docs/runbooks/dead-letters.md).",
            [Query(per_second("messages_handled_total", by="outcome"), "{{outcome}}")],
            "ops",
            width=8,
        ),
        graph(
            "Share of redelivered messages",
            "Tried again within a minute. Over 5 %: something that handlers need is away.",
            [Query(share("messages_handled_total", 'outcome="redelivered"', by="job"), "{{job}}")],
            "percentunit",
            thresholds=[(0.05, RED)],
            width=8,
        ),
    ),
)

_OUTBOXES: Final = Section(
    "Outboxes and dead letters",
    (
        graph(
            "Unconfirmed messages",
            "Rows that no receipt has ended yet.",
            [Query(told_by_each("outbox_messages", by="service, state"), "{{service}} {{state}}")],
            "short",
            width=6,
        ),
        graph(
            "Age of the oldest",
            "A message is sent again after 30 s, then ever more rarely.",
            [Query(f"max by (service) ({select('outbox_oldest_age_seconds')})", "{{service}}")],
            "s",
            thresholds=[(300, RED)],
            width=6,
        ),
        graph(
            "Sent again",
            "Because no receipt came. A few after a restart are normal.",
            [Query(per_second("outbox_resent_total", by="service"), "{{service}}")],
            "ops",
            thresholds=[(1, ORANGE)],
            width=6,
        ),
        graph(
            "Dead letters",
            "What a service can never handle (docs/runbooks/dead-letters.md).",
            [Query(told_by_each("dead_letters", by="service"), "{{service}}")],
            "short",
            thresholds=[(1, RED)],
            width=6,
        ),
    ),
)

_REDIS: Final = Section(
    "Redis",
    (
        number(
            "Reached",
            "Share of publications in the time shown that Redis took at once.",
            f"1 - ({in_view('messages_publications_failed_total')} or vector(0))"
            f" / {in_view('messages_published_total')}",
            "percentunit",
            base=RED,
            thresholds=[(0.99, ORANGE), (0.999, GREEN)],
        ),
        graph(
            "Memory",
            "Queues only: every payment is in PostgreSQL. At its limit Redis takes nothing more, "
            "and the outboxes hold it back (docs/runbooks/servers-away.md). A limit of 0 is none.",
            [Query(told_by_each("redis_memory_bytes", by="kind"), "{{kind}}")],
            "bytes",
            width=7,
        ),
        graph(
            "Publications that failed, by queue",
            "Over 0 for minutes: Redis is away (docs/runbooks/servers-away.md). Nothing is lost.",
            [Query(per_second("messages_publications_failed_total", by="queue"), "{{queue}}")],
            "ops",
            width=6,
        ),
        bars(
            "Dead letters handled again in the time shown",
            "By command, and how that ended.",
            [
                Query(
                    in_view("dead_letters_retried_total", by="service, outcome"),
                    "{{service}} {{outcome}}",
                )
            ],
            "short",
            width=7,
        ),
    ),
)

QUEUES: Final = Dashboard(
    name="queues",
    title="queues and Redis",
    description="What is between the services: queues, outboxes, dead letters, Redis.",
    sections=(_NOW, _QUEUES, _HANDLING, _OUTBOXES, _REDIS),
    choices=(Choice("queue", "queue_messages", "queue", "Queue"),),
)
