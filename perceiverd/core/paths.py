"""Where files lie: what ships with the package, and where the service keeps its own. Opens nothing."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
"""The folder `perceiverd`."""
SHIPPED_MODELS = (PACKAGE / "models", PACKAGE.parent / "models")
SHIPPED_CONFIGS = (PACKAGE / "configs", PACKAGE.parent / "configs")
"""In an installed package both folders lie inside it; in a checkout they lie beside it. Readers try both, in order."""

SERVICE_ENDPOINT = "ipc:///run/perceiverd/labels"
"""ZeroMQ endpoint where the service publishes unless its configuration names another."""
SERVICE_CONFIG = Path("/etc/perceiverd/perceiverd.toml")
"""Configuration that the systemd unit runs."""
SERVICE_WEB_CONFIG = Path("/etc/perceiverd/web.toml")
"""Configuration that the unit perceiverd-web runs."""
SERVICE_HISTORY = Path("/var/lib/perceiverd-history/history.sqlite3")
"""Database that the unit perceiverd-history writes."""
SERVICE_SNAPSHOTS = Path("/var/lib/perceiverd/snapshots")
"""Folder in which the service keeps snapshots unless its configuration names another."""
SOCKET_PATH_BYTES = 107
"""The longest path of a Unix socket: `sun_path` in sys/un.h has 108 bytes, and the last one is 0."""


def shipped_config(name: str) -> Path | None:
    """The shipped configuration file of this name (`demo.toml`, `demo/clip.mp4`), or None if it is not installed."""
    return next((path for folder in SHIPPED_CONFIGS if (path := folder / name).is_file()), None)
