"""The TOML file: options, reading, errors that help. Does not know what is done with the options."""

from perceiverd.config.reader import load, secrets_of, table
from perceiverd.config.schema import (
    Config,
    MetricsConfig,
    ModelConfig,
    PublishConfig,
    SnapshotsConfig,
    StallsConfig,
    StreamConfig,
    WindowConfig,
)

__all__ = [
    "Config",
    "MetricsConfig",
    "ModelConfig",
    "PublishConfig",
    "SnapshotsConfig",
    "StallsConfig",
    "StreamConfig",
    "WindowConfig",
    "load",
    "secrets_of",
    "table",
]
