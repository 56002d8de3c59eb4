"""The tables of the scheduler that grow with traffic, cut by time.

A subscription's rows lie in the partition of the month in which it was made. Jobs lie in that of
the day on which they were ordered; `handlers/job_retention.py` drops them.
"""

from __future__ import annotations

from typing import Final

from shared.partitions import PartitionedTable

PARTITIONED_TABLES: Final = (
    PartitionedTable("billing_cycle", "month", id_prefix="sub"),
    PartitionedTable("subscription_history", "month", id_prefix="sub"),
    PartitionedTable("job", "day", id_prefix="job"),
)
