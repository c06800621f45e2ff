"""The options of the TOML file, with their defaults. What the model's weights decide is in `model.geometry`.

A configuration is data: building it opens nothing, logs nothing and reads no environment variable. Secrets are looked
up in a separate step (`reader.secrets_of`) and never stored in it.

The docstrings under the fields are written for operators. They are the comments of `configs/perceiverd.toml` and the
descriptions in `configs/perceiverd.schema.json`; `make docs` writes both.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from perceiverd.core.media import NS_PER_S
from perceiverd.core.paths import SERVICE_ENDPOINT
from perceiverd.model.card import DEFAULT
from perceiverd.model.engine import DEVICE_PATTERN, EngineName, Precision
from perceiverd.pipeline.rules import EventOptions, StreamOptions
from perceiverd.pipeline.stalls import StallLimits
from perceiverd.pipeline.windower import Tolerance
from perceiverd.sources.specs import Source

TCP = re.compile(r"tcp://(\*|\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(?P<port>\*|\d{1,5})")
LOOPBACK = re.compile(r"tcp://(127(\.\d{1,3}){3}|localhost|\[::1\]):(?P<port>\*|\d{1,5})")
HTTP_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\*|\d{1,5})")
ANYWHERE = {"*", "0.0.0.0", "::"}
"""Hosts that stand for every address of the machine."""
STREAM_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[model]`: which model runs, and on what."""

    name: str = DEFAULT
    """Name of a bundled model or of one that the daemon's user has imported (`perceiverd models list`), or the path of
    a model's folder. A path has at least one slash."""
    device: str = "auto"
    """Where the network runs: auto (the first GPU, otherwise the CPU), cpu, cuda or cuda:N."""
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    """CPU threads for the network; 0 means one for each core."""
    engine: EngineName = "auto"
    """What computes the network. onnxruntime: ONNX Runtime, on the CPU only; it needs a third of PyTorch's CPU time and
    memory. torch: PyTorch. auto: onnxruntime, but torch if there is a GPU that device may use."""
    precision: Precision = "auto"
    """Number format of products on a GPU: float32, bfloat16 or float16. auto: the fastest that its tensor cores have.
    Sums, softmax and normalisation are in float32 always."""
    max_batch: Annotated[int, Meta(ge=0, le=1024)] = 0
    """The most windows that a GPU computes together; 0: 64, or fewer if the model's windows are large. A smaller number
    needs less of its memory. If more streams have a window, they take turns."""
    max_batch_wait_ms: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """How long the first window of a batch may wait for windows of other streams, in milliseconds. Larger batches save
    energy, but labels come later. A busy device fills its batches without this."""

    def __post_init__(self) -> None:
        if not DEVICE_PATTERN.fullmatch(self.device):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:N, not {self.device!r}")
        if not self.name:
            raise ValueError("name is empty; give a model's name or folder")
        if self.engine == "onnxruntime" and self.device.startswith("cuda"):
            raise ValueError(f"engine onnxruntime runs on the CPU only, but device is {self.device!r}")


class WindowConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[window]`: how often windows are cut from a stream, and how long they wait for late media."""

    hop_s: Annotated[float, Meta(ge=0.001, le=3600)] = 0.5
    """Time from the start of one window to the start of the next, in seconds. The model decides how long a window
    is."""
    wait_s: Annotated[float, Meta(ge=0, le=60)] = 0.5
    """How long to wait for late audio or video before a window is cut without it, in seconds."""
    chunk_gap_s: Annotated[float, Meta(gt=0, le=10)] = 0.015
    """Jitter of the audio's times, in seconds: if two pieces of audio are at most this far apart, nothing is missing
    between them."""
    frame_gap_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    """How long a frame stands for the time after it, in seconds."""
    conceal_s: Annotated[float, Meta(ge=0, le=10)] = 0.2
    """The longest hole in a window that is always filled, in seconds: audio from the audio beside it, video with the
    nearest frame. If a hole is longer, a window still has this audio or video if at least half of it is present. 0
    fills no hole: a window with a hole in its audio has no audio."""
    still_levels: Annotated[float, Meta(ge=0, le=255)] = 2.0
    """A frame counts as unchanged if the mean colour of each block of 8 by 8 pixels differs from that of the earlier
    frame by at most this many of 255 levels. The network then reuses its result for the earlier frame, which saves
    most of the work for a still scene. 0: every frame counts as new."""

    @property
    def tolerance(self) -> Tolerance:
        """The same for the windower, which has no defaults of its own."""
        return Tolerance(
            wait_ns=round(self.wait_s * NS_PER_S),
            chunk_gap_ns=round(self.chunk_gap_s * NS_PER_S),
            frame_gap_ns=round(self.frame_gap_s * NS_PER_S),
            conceal_ns=round(self.conceal_s * NS_PER_S),
        )


class StallsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[stalls]`: when to treat frozen video or silent audio as missing."""

    frozen_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Video that is bit-identical for this many seconds counts as frozen, and its source is restarted; 0 for never.
    Each restart that does not help doubles the time until the next one. Cameras that save bandwidth repeat a still
    frame until their next key frame: keep this well above the key frame interval, which is rarely longer than 10 s."""
    silent_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Constant audio (zeros, for example) counts as dead after this many seconds; 0 for never. A muted microphone or an
    unplugged cable gives such audio."""

    @property
    def limits(self) -> StallLimits:
        """The same for the detectors, which have no defaults of their own."""
        return StallLimits(round(self.frozen_s * NS_PER_S), round(self.silent_s * NS_PER_S))


class PublishConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[publish]`: where labels are published, and who may read them."""

    endpoint: str = SERVICE_ENDPOINT
    """The ZeroMQ endpoint that subscribers connect to: ipc://PATH, ipc://@ABSTRACT-NAME or tcp://127.0.0.1:PORT (port *
    takes a free one). tcp://ADDRESS:PORT that other machines can reach needs the keys below."""
    secret_key: str | None = None
    """File with the daemon's secret key (`perceiverd keys new` makes one). With it all messages are encrypted, and only
    the clients in client_keys may subscribe."""
    client_keys: str | None = None
    """Folder with the public keys of the clients, one file NAME.key each. The daemon reads it every second: a client
    whose key is added may connect, a client whose key is removed is disconnected."""
    insecure: bool = False
    """true allows an endpoint that other machines can reach without encryption. Everyone on the network can then read
    all labels."""
    top: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """Number of labels in a message, best first."""
    high_water_mark: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Number of messages kept for a subscriber that does not read. Further messages are dropped for this subscriber
    only; it sees a gap in seq."""
    status_interval_s: Annotated[float, Meta(ge=0.1, le=60)] = 1.0
    """Time between two status messages of a stream, in seconds."""

    def __post_init__(self) -> None:
        if (self.secret_key is None) != (self.client_keys is None):
            raise ValueError("secret_key and client_keys belong together; set both or neither")
        if self.insecure and self.secret_key is not None:
            raise ValueError("insecure = true and secret_key contradict each other; remove one of them")
        if self.endpoint.startswith("tcp://"):
            self._check_tcp()
        elif not self.endpoint.startswith("ipc://") or self.endpoint == "ipc://":
            raise ValueError(f"endpoint must be ipc://PATH or tcp://127.0.0.1:PORT, not {self.endpoint!r}")

    def _check_tcp(self) -> None:
        address = TCP.fullmatch(self.endpoint)
        if not address:
            raise ValueError(
                f"endpoint must be tcp://ADDRESS:PORT, such as tcp://127.0.0.1:5555, not {self.endpoint!r}"
            )
        if address["port"] != "*" and int(address["port"]) > 65535:  # ZeroMQ would take it modulo 65536
            raise ValueError(f"endpoint {self.endpoint} has a port above 65535; use a port from 1 to 65535")
        if not (LOOPBACK.fullmatch(self.endpoint) or self.secret_key or self.insecure):
            raise ValueError(
                f"other machines could reach endpoint {self.endpoint}, unencrypted; use ipc://PATH or "
                "tcp://127.0.0.1:PORT, or set secret_key and client_keys (`perceiverd keys new`), or set "
                "insecure = true"
            )


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[metrics]`: where Prometheus and health probes connect."""

    endpoint: str | None = None
    """HOST:PORT of an HTTP server with /metrics for Prometheus, and /healthz and /readyz for probes (port * takes a
    free one). Without it there is no server."""
    insecure: bool = False
    """true allows an endpoint that other machines can reach. Everyone on the network can then read the metrics."""

    def __post_init__(self) -> None:
        if self.endpoint is None:
            return
        address = HTTP_ADDRESS.fullmatch(self.endpoint)
        if not address or (address["port"] != "*" and int(address["port"]) > 65535):
            raise ValueError(f"endpoint must be HOST:PORT, such as 127.0.0.1:9464, not {self.endpoint!r}")
        if not (self.insecure or LOOPBACK.fullmatch(f"tcp://{self.endpoint}")):
            raise ValueError(
                f"every machine on the network could read endpoint {self.endpoint}; "
                "use 127.0.0.1:PORT, or set insecure = true"
            )

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port (0 for a free one); None if there is no server."""
        if self.endpoint is None:
            return None
        host, _, port = self.endpoint.rpartition(":")
        return host.strip("[]"), 0 if port == "*" else int(port)


class StreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[streams.NAME]`: one scene to watch. NAME is up to 64 letters, digits, _ and -."""

    sources: Annotated[tuple[Source, ...], Meta(min_length=1)]
    """One source with audio and video, or one source for each. If two sources give the same kind of media, the first
    one in the list is used, and the next one while the first is lost or stalled."""
    enabled: bool = True
    """false switches the stream off without deleting it."""
    snapshot_on_event: bool | None = None
    """Whether to keep pictures of this stream's events. Without it, on_event in [snapshots] decides."""
    av_offset_ms: Annotated[float, Meta(ge=-5000, le=5000)] = 0.0
    """Milliseconds to add to the times of this stream's frames, for devices whose audio and video do not match. Clap in
    front of the camera: if you see the clap 80 ms after you hear it, set -80.0; if you see it 80 ms before, set
    80.0."""
    events: StreamOptions = StreamOptions()
    """Options of [events] that differ for this stream."""


class SnapshotsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[snapshots]`: pictures and clips of events. By default perceiverd stores no audio and no video."""

    on_event: bool = False
    """Whether to keep a JPEG picture when an event begins. Each stream can override this. If a stream has no video,
    its audio and a picture of its spectrogram are kept, if before_s or after_s is above 0."""
    directory: str | None = None
    """Folder for the pictures; only the daemon's user can read it, and its group if it has mode 2750. Without it, the
    service's state directory (/var/lib/perceiverd) is used."""
    longest_px: Annotated[int, Meta(ge=16, le=16_384)] = 1280
    """Largest length of a picture's longer side, in pixels. Larger pictures are scaled down."""
    before_s: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Seconds before the event that a clip beside the picture shows. There is no clip if before_s and after_s are 0.
    A clip has 5 frames per second, and audio if the same source gives it; the clip of a stream without video is a
    FLAC file with the audio that the model receives."""
    after_s: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Seconds after the start of the event that the clip shows."""
    keep_speech: bool = True
    """false: keep no picture and no clip if people may be speaking in the time of the clip: if Speech, a label below
    it in the ontology, Whispering, Chatter or Hubbub has a score of speech_score or more in any window of that time.
    The event's messages say that nothing is kept."""
    speech_score: Annotated[float, Meta(gt=0, le=1)] = 0.02
    """With keep_speech = false, nothing is kept if speech has this score or more. A lower value keeps less speech,
    and fewer clips."""
    max_age_days: Annotated[float, Meta(gt=0, le=3650)] = 7.0
    """Age in days after which pictures and clips are deleted."""
    recent_hours: Annotated[float, Meta(ge=0, le=8760)] = 0.0
    """Hours for which the sound of every stream is kept, whether or not it has events, so that missed sounds can be
    marked and new ones taught. 0 keeps none. It is in files of up to 20 s in recent/STREAM in the folder of pictures.
    Sound within 3 s of a window with speech is left out if keep_speech = false."""
    recent_mb: Annotated[int, Meta(ge=1, le=100_000_000)] = 2000
    """Largest total size of recent sound, in megabytes, in equal parts for all streams; above it the oldest is deleted.
    An hour of a stream is some 50 MB."""
    max_total_mb: Annotated[int, Meta(ge=1, le=100_000_000)] = 1000
    """Largest total size of pictures and clips, in megabytes; above it the oldest are deleted. Nothing is stored while
    the disk has less than 100 MB free."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Relative paths start at the file's folder. An unknown option is an error."""

    model: ModelConfig = ModelConfig()
    window: WindowConfig = WindowConfig()
    publish: PublishConfig = PublishConfig()
    metrics: MetricsConfig = MetricsConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    events: EventOptions = EventOptions()
    stalls: StallsConfig = StallsConfig()
    streams: dict[str, StreamConfig] = {}
    """The streams by name. A stream's name is part of its topics: scores/NAME/, events/NAME/ and status/NAME/."""

    def __post_init__(self) -> None:
        labels, metrics = TCP.fullmatch(self.publish.endpoint), self.metrics.address
        if labels and metrics and metrics[1] and labels["port"] == str(metrics[1]):
            hosts = {"127.0.0.1" if host == "localhost" else host for host in (labels[1].strip("[]"), metrics[0])}
            if len(hosts) == 1 or hosts & ANYWHERE:
                raise ValueError(f"publish.endpoint and metrics.endpoint use the same port {metrics[1]}; change one")
