"""What the dashboard of each service ends with: requests, messages, processes."""

from __future__ import annotations

from deploy.grafana.expressions import per_second, quantile, select, told_by_each
from deploy.grafana.panels import ORANGE, RED, Query, Section, graph


def endings(service: str) -> tuple[Section, ...]:
    """Return the sections that every service's dashboard has."""
    return _requests(service), _messages(service), _processes(service)


def _requests(service: str) -> Section:
    job = f'job="{service}"'
    requests = "http_request_duration_seconds"
    return Section(
        "Requests",
        (
            graph(
                "Requests by status",
                "Answers a second. 429 is a rate limit, 503 a server that is away or a drain.",
                [Query(per_second(f"{requests}_count", job, by="status"), "{{status}}")],
                "reqps",
                is_stacked=True,
                width=8,
            ),
            graph(
                "Requests by route",
                "The ten busiest. `none`: no such path or method.",
                [
                    Query(
                        f"topk(10, {per_second(f'{requests}_count', job, by='method, route')})",
                        "{{method}} {{route}}",
                    )
                ],
                "reqps",
                width=8,
            ),
            graph(
                "Slowest routes (p95)",
                "The ten slowest routes by the time that 95 % of their requests stayed under.",
                [
                    Query(
                        f"topk(10, {quantile(0.95, requests, job, by='method, route')})",
                        "{{method}} {{route}}",
                    )
                ],
                "s",
                thresholds=[(1, RED)],
                width=8,
            ),
        ),
    )


def _messages(service: str) -> Section:
    job = f'job="{service}"'
    own = f'service="{service}"'
    return Section(
        "Messages",
        (
            graph(
                "Messages handled",
                "By their end. `redelivered` is tried again in a minute, `left_to_outbox` waits "
                "for its sender, `dead` for an operator (docs/runbooks/dead-letters.md).",
                [Query(per_second("messages_handled_total", job, by="outcome"), "{{outcome}}")],
                "ops",
                width=8,
            ),
            graph(
                "Messages in hand",
                "Taken from the queues and not finished, by process. At 1,000 a worker is full.",
                [Query(select("messages_in_hand", own), "{{instance}}")],
                "short",
                thresholds=[(1_000, RED)],
                width=8,
            ),
            graph(
                "Own queues: ready messages",
                "Nobody has taken them. Growing for minutes: too few workers "
                "(docs/runbooks/queue-not-draining.md).",
                [
                    Query(
                        told_by_each("queue_messages", f'{job},state="ready"', by="queue"),
                        "{{queue}}",
                    )
                ],
                "short",
                width=8,
            ),
            graph(
                "Outbox: unconfirmed messages",
                "`waiting` are sent again in time; `parked` were sent too often and wait for an "
                "operator (docs/runbooks/outbox-not-draining.md).",
                [Query(told_by_each("outbox_messages", own, by="state"), "{{state}}")],
                "short",
                width=12,
            ),
            graph(
                "Outbox: age of the oldest",
                "Time without a receipt. Seconds are usual, minutes are not.",
                [Query(f"max({select('outbox_oldest_age_seconds', own)})", "oldest")],
                "s",
                thresholds=[(60, ORANGE), (300, RED)],
                width=12,
            ),
        ),
    )


def _processes(service: str) -> Section:
    job = f'job="{service}"'
    name = "{{app_kubernetes_io_component}} {{instance}}"
    return Section(
        "Processes",
        (
            graph(
                "Processes that answer",
                "How many of the service Prometheus could read.",
                [
                    Query(
                        f"sum by (app_kubernetes_io_component) ({select('up', job)})",
                        "{{app_kubernetes_io_component}}",
                    )
                ],
                "short",
                width=6,
            ),
            graph(
                "Processor time",
                "Cores in use, by process. One process uses one core at the most.",
                [
                    Query(
                        f"rate({select('process_cpu_seconds_total', job)}[$__rate_interval])", name
                    )
                ],
                "short",
                thresholds=[(0.9, ORANGE)],
                width=6,
            ),
            graph(
                "Memory",
                "Resident, by process. It must not grow with the number of payments.",
                [Query(select("process_resident_memory_bytes", job), name)],
                "bytes",
                width=6,
            ),
            graph(
                "Open files",
                "Connections count here, by process.",
                [Query(select("process_open_fds", job), name)],
                "short",
                width=6,
            ),
        ),
    )
