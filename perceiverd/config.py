"""What the operator decides, read from one TOML file. What the weights decide is in `geometry`.

Config is data: nothing is opened, logged or read from the environment while it is built; secrets that it refers to are
looked up in a step of their own (`secrets_of`), and never become part of it. `configs/perceiverd.toml` shows every
option with its default.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, inspect

from perceiverd.card import DEFAULT
from perceiverd.errors import ConfigError
from perceiverd.rules import EventOptions, LabelOptions, StreamOptions
from perceiverd.secrets import look_up, masked
from perceiverd.sources import File, Source, Url
from perceiverd.sources import secrets_of as secrets_of_source

TCP = re.compile(r"tcp://(\*|\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(?P<port>\*|\d{1,5})")
LOOPBACK = re.compile(r"tcp://(127(\.\d{1,3}){3}|localhost|\[::1\]):(?P<port>\*|\d{1,5})")
HTTP_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\*|\d{1,5})")
ANYWHERE = {"*", "0.0.0.0", "::"}
SUCH_AS = ', such as sources = [{ kind = "camera" }]'
STREAM_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")

Section = TypeVar("Section")


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[window]`: how often a stream is looked at, and how patiently."""

    hop_s: Annotated[float, Meta(ge=0.001, le=3600)] = 0.5
    """Seconds from the start of one window to the start of the next."""
    wait_s: Annotated[float, Meta(ge=0, le=60)] = 0.5
    """Seconds that sound waits for late pictures, or they for it, before a window goes out without."""
    chunk_gap_s: Annotated[float, Meta(gt=0, le=10)] = 0.02
    """Seconds of missing sound over which no window reaches."""
    frame_gap_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    """Seconds without a picture over which no window reaches; until then the last picture stands."""


class Stalls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[stalls]`: what comes and yet is nothing. It counts as missing; files that are replayed are not watched."""

    frozen_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Seconds after which a picture that stays the same to the last bit is frozen, and its source is started again; 0
    for never."""
    silent_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """Seconds after which sound that is constant, such as zeros, is dead, which is told; 0 for never."""


class Publish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


class Snapshots(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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

    model: Model = Model()
    window: Window = Window()
    publish: Publish = Publish()
    metrics: Metrics = Metrics()
    snapshots: Snapshots = Snapshots()
    events: EventOptions = EventOptions()
    stalls: Stalls = Stalls()
    streams: dict[str, Stream] = {}

    def __post_init__(self) -> None:
        labels, metrics = TCP.fullmatch(self.publish.endpoint), self.metrics.address
        if labels and metrics and metrics[1] and labels["port"] == str(metrics[1]):
            hosts = {"127.0.0.1" if host == "localhost" else host for host in (labels[1].strip("[]"), metrics[0])}
            if len(hosts) == 1 or hosts & ANYWHERE:
                raise ValueError(
                    f"publish.endpoint and metrics.endpoint are the same port {metrics[1]}; change one of them"
                )


def load(path: Path, endpoint: str | None = None) -> Config:
    """The config in this file; relative paths in it are taken from its folder.

    `endpoint`, where it is given, stands in the place of the file's `publish.endpoint`.

    Raises ConfigError: one line with the file, the place in it (`$.streams.door.sources[0].pth`) and what to do.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        settings = _rooted(_parse(table), path.resolve().parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if endpoint is None:
        return settings
    try:
        publish = msgspec.structs.replace(settings.publish, endpoint=endpoint)
        return msgspec.structs.replace(settings, publish=publish)
    except ValueError as error:
        raise ConfigError(f"--endpoint: {error}") from error


def secrets_of(settings: Config, environment: Mapping[str, str]) -> dict[str, str]:
    """What the enabled streams refer to, by name. Raises ConfigError where one is missing or makes no URL."""
    secrets: dict[str, str] = {}
    for name, stream in settings.streams.items():
        for position, source in enumerate(stream.sources if stream.enabled else ()):
            try:
                secrets |= {each: look_up(each, environment) for each in secrets_of_source(source)}
                if isinstance(source, Url):
                    source.filled(secrets)
            except (ConfigError, ValueError) as error:
                raise ConfigError(f"$.streams.{name}.sources[{position}].url: {error}") from None
    return secrets


def table(settings: Config, *, defaults: bool) -> dict[str, Any]:
    """The config as `load` would read it, with `***` for what passwords it has; without `defaults`, what differs."""
    shown: dict[str, Any] = _shown(settings, defaults=defaults)
    return shown


def _shown(value: Any, *, defaults: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _shown(each, defaults=defaults) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(each, defaults=defaults) for each in value]
    if not isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    tag_field = value.__struct_config__.tag_field
    told: dict[str, Any] = {tag_field: value.__struct_config__.tag} if tag_field else {}
    for field in msgspec.structs.fields(value):
        each = getattr(value, field.name)
        usual = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if defaults or each != usual:
            told[field.encode_name] = _shown(each, defaults=defaults)
    return told | {"url": masked(value.url)} if isinstance(value, Url) else told


def _parse(table: dict[str, Any]) -> Config:
    _check_references(table, "$")
    # Streams are converted one by one, because msgspec's places leave out the keys of a dict: `$.streams[...]`.
    streams = table.get("streams", {})
    config = convert({key: value for key, value in table.items() if key not in ("events", "streams")}, Config, "$")
    config = msgspec.structs.replace(config, events=_events(table.get("events", {}), EventOptions, "$.events"))
    if not isinstance(streams, dict):
        raise ConfigError("$.streams: expected tables [streams.NAME]")
    for name, stream in streams.items():
        if not STREAM_NAME.fullmatch(name):
            raise ConfigError(f"$.streams: {name!r} is no name of a stream: up to 64 letters, digits, _ and -")
        if not isinstance(stream, dict):
            raise ConfigError(f"$.streams.{name}: not a setting of all streams; expected a table [streams.NAME]")
    parsed = {name: _stream(stream, f"$.streams.{name}") for name, stream in streams.items()}
    return msgspec.structs.replace(config, streams=parsed)


def _stream(raw: dict[str, Any], where: str) -> Stream:
    stream = convert({key: value for key, value in raw.items() if key != "events"}, Stream, where)
    return msgspec.structs.replace(stream, events=_events(raw.get("events", {}), StreamOptions, f"{where}.events"))


Events = TypeVar("Events", EventOptions, StreamOptions)


def _events(raw: Any, section: type[Events], where: str) -> Events:
    if not isinstance(raw, dict) or not isinstance(labels := raw.get("labels", {}), dict):
        raise ConfigError(f"{where}: expected a table, in it tables [{where.removeprefix('$.')}.labels.NAME]")
    options = convert({key: value for key, value in raw.items() if key != "labels"}, section, where)
    parsed = {label: convert(option, LabelOptions, f"{where}.labels.{label}") for label, option in labels.items()}
    return msgspec.structs.replace(options, labels=parsed)


def _check_references(raw: Any, where: str) -> None:
    """A reference that nobody would look up is surely a slip."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            _check_references(value, f"{where}.{key}")
    elif isinstance(raw, list):
        for position, value in enumerate(raw):
            _check_references(value, f"{where}[{position}]")
    elif isinstance(raw, str) and "${" in raw and not where.endswith("].url"):
        raise ConfigError(f"{where}: ${{NAME}} is filled in nowhere but in the url of a source")


def convert(raw: dict[str, Any], section: type[Section], where: str) -> Section:
    try:
        return msgspec.convert(raw, section)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        place = place.rstrip("`")
        raise ConfigError(f"{where}{_explain(what, place, section, raw)}") from error


def _explain(what: str, place: str, section: type, raw: dict[str, Any]) -> str:
    """What msgspec said, with the offending key at the end of its place, and what may have been meant."""
    steps: list[str | int] = [int(i) if i else key for key, i in re.findall(r"\.(\w+)|\[(\d+)\]", place)]
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        known = _keys(inspect.type_info(section), raw, steps)
        return f"{place}.{unknown[1]}: no such option; {_meant(unknown[1], known)}"
    if wrong := re.fullmatch(r"Invalid value '(.*)'", what):  # only a tag is refused with these words
        known = [str(kind.tag) for kind in _structs(_follow(inspect.type_info(section), raw, steps[:-1])[0])]
        return f"{place}: {wrong[1]!r} is none; {_meant(wrong[1], known)}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        said = f"the option `{missing[1]}` is missing"
        if missing[1] == "kind":
            kinds = _structs(_follow(inspect.type_info(section), raw, steps)[0])
            return f"{place}: {said}; there are {', '.join(str(kind.tag) for kind in kinds)}"
        return f"{place}: {said}{SUCH_AS if missing[1] == 'sources' else ''}"
    # In TOML's words; msgspec speaks in those of JSON.
    what = what[:1].lower() + what[1:].replace("`array`", "a list").replace("`object`", "a table")
    return f"{place}: {what}{SUCH_AS if place.endswith('.sources') else ''}"


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"


def _keys(kind: inspect.Type, raw: Any, steps: Sequence[str | int]) -> list[str]:
    """The options of the table to which these steps lead."""
    kind, raw = _follow(kind, raw, steps)
    return [field.encode_name for struct in _structs(kind, raw) for field in struct.fields] + [
        struct.tag_field for struct in _structs(kind, raw)[:1] if struct.tag_field
    ]


def _follow(kind: inspect.Type, raw: Any, steps: Sequence[str | int]) -> tuple[inspect.Type, Any]:
    """The type and the value to which these steps lead."""
    for step in steps:
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
        if isinstance(step, int):
            assert isinstance(kind, inspect.VarTupleType | inspect.ListType)
            kind = kind.item_type
        else:
            kind = next(f.type for struct in _structs(kind, raw) for f in struct.fields if f.encode_name == step)
        raw = raw[step]
    return kind, raw


def _structs(kind: inspect.Type, raw: Any = None) -> list[inspect.StructType]:
    """The struct that this type is, or those of a union; only the one that is meant, where the value says it."""
    members = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    structs = [member for member in members if isinstance(member, inspect.StructType)]
    if isinstance(raw, dict) and len(structs) > 1:
        return [struct for struct in structs if struct.tag == raw.get(struct.tag_field)] or structs
    return structs


def _rooted(config: Config, root: Path) -> Config:
    """The config with its relative paths made absolute."""
    model, publish = config.model, config.publish
    if "/" in model.name:
        model = msgspec.structs.replace(model, name=str(root / model.name))
    scheme, _, address = publish.endpoint.partition("://")
    if scheme == "ipc" and not address.startswith(("/", "@")):
        publish = msgspec.structs.replace(publish, endpoint=f"ipc://{root / address}")
    if publish.secret_key is not None and publish.client_keys is not None:
        publish = msgspec.structs.replace(
            publish, secret_key=str(root / publish.secret_key), client_keys=str(root / publish.client_keys)
        )
    snapshots = config.snapshots
    if snapshots.directory is not None:
        snapshots = msgspec.structs.replace(snapshots, directory=str(root / snapshots.directory))
    streams = {
        name: msgspec.structs.replace(stream, sources=tuple(_source_rooted(source, root) for source in stream.sources))
        for name, stream in config.streams.items()
    }
    return msgspec.structs.replace(config, model=model, publish=publish, snapshots=snapshots, streams=streams)


def _source_rooted(source: Source, root: Path) -> Source:
    match source:
        case File(path=path):
            return msgspec.structs.replace(source, path=str(root / path))
        case Url(ca_file=str(path)):
            return msgspec.structs.replace(source, ca_file=str(root / path))
        case _:
            return source
