"""`history-configuration.md`: every option of the history's TOML file, by table."""

from __future__ import annotations

from docs.generate.options import described
from perceiverd.config import MetricsConfig
from perceiverd.history.settings import DaemonConfig, StoreConfig

TABLES: dict[str, type] = {"store": StoreConfig, "daemons.NAME": DaemonConfig, "metrics": MetricsConfig}


def contents() -> dict[str, str]:
    """The parts of the page."""
    return {"tables": "\n\n".join(described(name, kind) for name, kind in TABLES.items())}
