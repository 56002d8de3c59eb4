"""The tables of the payments service that grow with traffic, cut by time."""

from __future__ import annotations

from typing import Final

from shared.partitions import PartitionedTable

PARTITIONED_TABLES: Final = (
    PartitionedTable("payment", "month", id_prefix="pay"),
    PartitionedTable("payment_history", "month", id_prefix="pay"),
    PartitionedTable("charge_order", "month", id_prefix="pay"),
    PartitionedTable("retry", "month", id_prefix="pay"),
    PartitionedTable("retry_attempt", "month", id_prefix="pay"),
    PartitionedTable("attempt", "month", id_prefix="att"),
    PartitionedTable("refund", "month", id_prefix="ref"),
    PartitionedTable("ledger_transfer", "month", id_prefix="pay"),
)
