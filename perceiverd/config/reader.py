"""Reads the configuration from its file and its secrets from the environment, and turns it back into a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from perceiverd.config.hints import convert
from perceiverd.config.schema import STREAM_NAME, Config, StreamConfig
from perceiverd.config.toml import read_table
from perceiverd.core.errors import ConfigError
from perceiverd.core.paths import SOCKET_PATH_BYTES
from perceiverd.core.secrets import look_up, masked
from perceiverd.pipeline.rules import EventOptions, LabelOptions, StreamOptions
from perceiverd.sources.specs import File, Pipe, Source, Url, name_of
from perceiverd.sources.specs import secrets_of as secrets_of_source


def load(path: Path, endpoint: str | None = None) -> Config:
    """Read this file. Relative paths in it start at its folder. `endpoint` replaces the file's `publish.endpoint`.

    Raises ConfigError: one line with the file, the place in it (`$.streams.door.sources[0].pth`) and what to do.
    """
    table = read_table(path, "the configuration")
    try:
        settings = _rooted(_parse(table), path.resolve().parent)
        _check_socket_path("$.publish.endpoint", settings)
        _check_pipes(settings.streams)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if endpoint is None:
        return settings
    try:
        publish = msgspec.structs.replace(settings.publish, endpoint=endpoint)
        settings = msgspec.structs.replace(settings, publish=publish)
    except ValueError as error:
        raise ConfigError(f"--endpoint: {error}") from error
    _check_socket_path("--endpoint", settings)
    return settings


def _check_socket_path(place: str, settings: Config) -> None:
    """Raises ConfigError if the kernel has no room for the path of the socket."""
    scheme, _, address = settings.publish.endpoint.partition("://")
    if scheme == "ipc" and len(os.fsencode(address)) > SOCKET_PATH_BYTES:
        raise ConfigError(f"{place}: the path of a socket has at most {SOCKET_PATH_BYTES} bytes; write a shorter one")


def secrets_of(settings: Config, environment: Mapping[str, str]) -> dict[str, str]:
    """The secrets of the enabled streams, by name. Raises ConfigError if one is missing or gives an invalid URL."""
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
    """The configuration as `load` would read it, with `***` for passwords; without `defaults`, only what differs.

    Options that are None are left out: TOML has no such value.
    """
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
    table: dict[str, Any] = {tag_field: value.__struct_config__.tag} if tag_field else {}
    for field in msgspec.structs.fields(value):
        each = getattr(value, field.name)
        usual = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if each is not None and (defaults or each != usual):
            table[field.encode_name] = _shown(each, defaults=defaults)
    return table | {"url": masked(value.url)} if isinstance(value, Url) else table


def _parse(table: dict[str, Any]) -> Config:
    _check_texts(table, "$")
    # Streams are converted one by one: in msgspec's places the keys of a dict are missing (`$.streams[...]`).
    streams = table.get("streams", {})
    config = convert({key: value for key, value in table.items() if key not in ("events", "streams")}, Config, "$")
    config = msgspec.structs.replace(config, events=_events(table.get("events", {}), EventOptions, "$.events"))
    if not isinstance(streams, dict):
        raise ConfigError("$.streams: expected tables [streams.NAME]")
    for name, stream in streams.items():
        if not STREAM_NAME.fullmatch(name):
            raise ConfigError(f"$.streams: invalid stream name {name!r}; use up to 64 letters, digits, _ and -")
        if not isinstance(stream, dict):
            raise ConfigError(f"$.streams.{name}: unknown option; write a table [streams.NAME] for each stream")
    parsed = {name: _stream(stream, f"$.streams.{name}") for name, stream in streams.items()}
    return msgspec.structs.replace(config, streams=parsed)


def _check_pipes(streams: Mapping[str, StreamConfig]) -> None:
    """Refuse a pipe that two enabled sources would read: each would get a part of its data."""
    places: dict[str, str] = {}
    for name, stream in streams.items():
        for position, source in enumerate(stream.sources if stream.enabled else ()):
            if not isinstance(source, Pipe):
                continue
            where = f"$.streams.{name}.sources[{position}]"
            if first := places.get(source.path):
                what = name_of(source)
                raise ConfigError(f"{where}.path: {what} is read by {first} already; only one source can read a pipe")
            places[source.path] = where


def _stream(raw: dict[str, Any], where: str) -> StreamConfig:
    stream = convert({key: value for key, value in raw.items() if key != "events"}, StreamConfig, where)
    return msgspec.structs.replace(stream, events=_events(raw.get("events", {}), StreamOptions, f"{where}.events"))


Events = TypeVar("Events", EventOptions, StreamOptions)


def _events(raw: Any, section: type[Events], where: str) -> Events:
    if not isinstance(raw, dict) or not isinstance(labels := raw.get("labels", {}), dict):
        raise ConfigError(f"{where}: expected a table, with tables [{where.removeprefix('$.')}.labels.NAME] in it")
    options = convert({key: value for key, value in raw.items() if key != "labels"}, section, where)
    parsed = {label: convert(option, LabelOptions, f"{where}.labels.{label}") for label, option in labels.items()}
    return msgspec.structs.replace(options, labels=parsed)


def _check_texts(raw: Any, where: str) -> None:
    """Refuse a `${NAME}` in a place where it would not be replaced, and NUL, which no path and no address may have."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            _check_texts(value, f"{where}.{key}")
    elif isinstance(raw, list):
        for position, value in enumerate(raw):
            _check_texts(value, f"{where}[{position}]")
    elif isinstance(raw, str) and "\0" in raw:
        raise ConfigError(f"{where}: has a NUL character (\\u0000); remove it")
    elif isinstance(raw, str) and "${" in raw and not where.endswith("].url"):
        raise ConfigError(f"{where}: ${{NAME}} is replaced only in the url of a source; write the value itself")


def _rooted(config: Config, root: Path) -> Config:
    """The same configuration with absolute paths."""
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
        case Pipe(path=path) if source.is_standard_input:
            return source
        case File(path=path) | Pipe(path=path):
            return msgspec.structs.replace(source, path=str(root / path))
        case Url(ca_file=str(path)):
            return msgspec.structs.replace(source, ca_file=str(root / path))
        case _:
            return source
