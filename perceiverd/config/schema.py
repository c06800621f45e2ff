"""What the operator decides, read from one TOML file. What the weights decide is in `geometry`.

Config is data: nothing is opened, logged or read from the environment while it is built; secrets that it refers to are
looked up in a step of their own (`secrets_of`), and never become part of it. `configs/perceiverd.toml` shows every
option with its default.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from perceiverd.model.card import DEFAULT
from perceiverd.pipeline.rules import EventOptions, StreamOptions
from perceiverd.sources.specs import Source

TCP = re.compile(r"tcp://(\*|\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(?P<port>\*|\d{1,5})")
LOOPBACK = re.compile(r"tcp://(127(\.\d{1,3}){3}|localhost|\[::1\]):(?P<port>\*|\d{1,5})")
HTTP_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\*|\d{1,5})")
ANYWHERE = {"*", "0.0.0.0", "::"}
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[model]`: who listens and looks, and on what."""

    name: str = DEFAULT
    """A model that comes with perceiverd or was imported by this user, or a model's folder (with a slash in it)."""
    device: str = "auto"
    """`auto` (the first GPU, else the processor), `cpu`, `cuda` or `cuda:N`."""
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Processor threads for the network; 0 leaves the choice to torch."""

    def __post_init__(self) -> None:
        if not DEVICE.fullmatch(self.device):
            raise ValueError(f"device is auto, cpu, cuda or cuda:N, not {self.device!r}")
        if not self.name:
            raise ValueError("name is empty")


class WindowConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[window]`: how often a stream is looked at, and how patiently."""

    hop_s: Annotated[float, Meta(ge=0.001, le=3600)] = 0.5
    """Seconds from the start of one window to the start of the next."""
    wait_s: Annotated[float, Meta(ge=0, le=60)] = 0.5
    """Seconds that sound waits for late pictures, or they for it, before a window goes out without."""
    chunk_gap_s: Annotated[float, Meta(gt=0, le=10)] = 0.02
    """Seconds of missing sound over which no window reaches."""
    frame_gap_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    """Seconds without a picture over which no window reaches; until then the last picture stands."""


class StallsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[stalls]`: what comes and yet is nothing. It counts as missing; files that are replayed are not watched."""

    frozen_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Seconds after which a picture that stays the same to the last bit is frozen, and its source is started again; 0
    for never."""
    silent_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Seconds after which sound that is constant, such as zeros, is dead, which is told; 0 for never."""


class PublishConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[publish]`: where labels go out."""

    endpoint: str = "ipc:///run/perceiverd/labels"
    """ZeroMQ endpoint to bind: `ipc://PATH`, `ipc://@ABSTRACT`, `tcp://127.0.0.1:PORT` (port * takes a free one); where
    other machines can reach it, `tcp://ADDRESS:PORT`, only with the keys below."""
    top: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """Labels in a message, best first."""
    high_water_mark: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Messages kept for a subscriber that does not read; what comes on top is dropped for it alone."""
    status_interval_s: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    """Seconds between two statuses of a stream."""
    secret_key: str | None = None
    """File with the daemon's secret key (`perceiverd keys new`). With it everything is encrypted, and only clients
    whose keys are in `client_keys` may subscribe."""
    client_keys: str | None = None
    """Folder with the public keys of the clients, `NAME.key` each; what changes in it is heeded within a second."""
    insecure: bool = False
    """True lets an address be bound that other machines can reach, unencrypted, where everyone may read what is heard.
    """

    def __post_init__(self) -> None:
        if (self.secret_key is None) != (self.client_keys is None):
            raise ValueError("secret_key and client_keys go together: whose key it is, and who may come in")
        if self.insecure and self.secret_key is not None:
            raise ValueError("insecure = true and secret_key contradict each other; remove one of them")
        if self.endpoint.startswith("tcp://"):
            address = TCP.fullmatch(self.endpoint)
            if not address:
                raise ValueError(f"endpoint is tcp://ADDRESS:PORT, such as tcp://127.0.0.1:5555, not {self.endpoint!r}")
            if address["port"] != "*" and int(address["port"]) > 65535:  # ZeroMQ would take it modulo 65536
                raise ValueError(f"endpoint {self.endpoint} has a port above 65535")
            if not (LOOPBACK.fullmatch(self.endpoint) or self.secret_key or self.insecure):
                raise ValueError(
                    f"endpoint {self.endpoint} could be reached from other machines, unencrypted; use ipc://PATH or "
                    "tcp://127.0.0.1:PORT, or set secret_key and client_keys (`perceiverd keys new`), or write "
                    "insecure = true beside it"
                )
        elif not self.endpoint.startswith("ipc://") or self.endpoint == "ipc://":
            raise ValueError(f"endpoint is ipc://PATH or tcp://127.0.0.1:PORT, not {self.endpoint!r}")


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[metrics]`: where Prometheus and probes ask."""

    endpoint: str | None = None
    """`127.0.0.1:9464`: HOST:PORT where `/metrics`, `/healthz` and `/readyz` are served (port * takes a free one).
    Without it nothing is served."""
    insecure: bool = False
    """True lets an address be bound that other machines can reach, where everyone may read what is heard."""

    def __post_init__(self) -> None:
        if self.endpoint is None:
            return
        address = HTTP_ADDRESS.fullmatch(self.endpoint)
        if not address or (address["port"] != "*" and int(address["port"]) > 65535):
            raise ValueError(f"endpoint is HOST:PORT, such as 127.0.0.1:9464, not {self.endpoint!r}")
        if not (self.insecure or LOOPBACK.fullmatch(f"tcp://{self.endpoint}")):
            raise ValueError(
                f"endpoint {self.endpoint} could be read from other machines, unencrypted and by everyone; "
                "use 127.0.0.1:PORT, or write insecure = true beside it"
            )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port (0 for a free one); None where nothing is served."""
        if self.endpoint is None:
            return None
        host, _, port = self.endpoint.rpartition(":")
        return host.strip("[]"), 0 if port == "*" else int(port)


class StreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[streams.NAME]`: one thing that is watched."""

    sources: Annotated[tuple[Source, ...], Meta(min_length=1)]
    """What it is watched with: one source with sound and pictures, or one of each. Where two give the same, the first
    of them in the list is heeded."""
    enabled: bool = True
    """False leaves the stream out without deleting it."""
    av_offset_ms: Annotated[float, Meta(ge=-5000, le=5000)] = 0.0
    """Milliseconds that are added to the times of its pictures. A flash that is seen 80 ms after its clap is heard
    wants -80, one that is seen 80 ms before wants 80."""
    snapshot_on_event: bool | None = None
    """Whether pictures of its events are kept; as `[snapshots]` says where None."""
    events: StreamOptions = StreamOptions()
    """What is special about its events."""


class SnapshotsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[snapshots]`: pictures of events, for those who ask. Otherwise nothing is kept of what is seen or heard."""

    on_event: bool = False
    """Whether a picture is kept when an event begins. Each stream may say otherwise."""
    directory: str | None = None
    """Where; in the service's state directory where None. Only the daemon's user may look into it."""
    longest_px: Annotated[int, Meta(ge=16, le=16_384)] = 1280
    """Of a picture's longer side; what the source takes larger is shrunk."""
    before_s: Annotated[float, Meta(ge=0, le=60)] = 0.0
    after_s: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Seconds before and after for a clip beside the picture; none is made where both are 0. It is cut by the source
    that gives the pictures: with its sound where that gives both, and nothing for a stream that only hears."""
    max_age_days: Annotated[float, Meta(gt=0, le=3650)] = 7.0
    """What is older is deleted."""
    max_total_mb: Annotated[int, Meta(ge=1, le=100_000_000)] = 1000
    """What is more is deleted, the oldest first."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    model: ModelConfig = ModelConfig()
    window: WindowConfig = WindowConfig()
    publish: PublishConfig = PublishConfig()
    metrics: MetricsConfig = MetricsConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    events: EventOptions = EventOptions()
    stalls: StallsConfig = StallsConfig()
    streams: dict[str, StreamConfig] = {}

    def __post_init__(self) -> None:
        labels, metrics = TCP.fullmatch(self.publish.endpoint), self.metrics.address
        if labels and metrics and metrics[1] and labels["port"] == str(metrics[1]):
            hosts = {"127.0.0.1" if host == "localhost" else host for host in (labels[1].strip("[]"), metrics[0])}
            if len(hosts) == 1 or hosts & ANYWHERE:
                raise ValueError(
                    f"publish.endpoint and metrics.endpoint are the same port {metrics[1]}; change one of them"
                )
