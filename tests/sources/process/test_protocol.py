"""The messages between worker and supervisor, as values."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from perceiverd.core.errors import WireError
from perceiverd.core.media import Chunk, Frame, MediaFormat, Timing, VideoFormat
from perceiverd.sources.process.protocol import (
    QUEUED_BYTES,
    SUPERVISOR_QUEUED,
    WORKER_QUEUED,
    Header,
    StartRequest,
    most_queued,
    packed,
    unpacked,
)
from perceiverd.sources.specs import File, Source, Synthetic, Url, name_of, shown

REQUEST = StartRequest(Synthetic(), MediaFormat(16000, VideoFormat(3, 5, 6.25)), "ipc:///x", "token", 7)


def sent(item: Frame | Chunk | None, dropped: int = 0) -> list[bytes]:
    return [bytes(part) for part in packed(REQUEST, dropped, item)]


@pytest.mark.parametrize(("height", "width"), [(192, 192), (224, 224), (640, 360), (1080, 1920), (2160, 3840)])
def test_what_waits_is_bounded_by_its_bytes(height: int, width: int) -> None:
    """Small frames may wait for seconds, large ones until both sides hold the limit, or four messages each."""
    wanted, each = MediaFormat(16_000, VideoFormat(height, width, 1.5)), 3 * height * width
    counts = [most_queued(wanted, most) for most in (WORKER_QUEUED, SUPERVISOR_QUEUED)]
    assert all(4 <= count <= most for count, most in zip(counts, (WORKER_QUEUED, SUPERVISOR_QUEUED), strict=True))
    assert sum(counts) * each <= QUEUED_BYTES or counts[1] == 4
    assert counts == [WORKER_QUEUED, SUPERVISOR_QUEUED] or height > 224
    assert most_queued(MediaFormat(16_000), WORKER_QUEUED) == WORKER_QUEUED


def test_a_frame_comes_through() -> None:
    """A frame keeps its pixels and its time; the header names source and try and counts dropped items."""
    pixels = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)
    header, item = unpacked(sent(Frame(-123, pixels), dropped=9))
    assert isinstance(item, Frame)
    assert (item.start_ns, header.token, header.incarnation, header.dropped) == (-123, "token", 7, 9)
    assert (item.pixels == pixels).all()


def test_a_chunk_comes_through() -> None:
    """A chunk keeps its samples, its rate and its time, even if the samples are a view of other memory."""
    samples = np.linspace(-1, 1, 22, dtype=np.float32)[::2]
    _, item = unpacked(sent(Chunk(5, samples, 16000)))
    assert isinstance(item, Chunk)
    assert (item.start_ns, item.rate_hz) == (5, 16000)
    assert (item.samples == samples).all()


def test_a_sign_of_life_carries_nothing() -> None:
    """None is sent as a header without data."""
    header, item = unpacked(sent(None))
    assert header.kind == "alive"
    assert item is None


@pytest.mark.parametrize("drift_ppm", [None, -12.5])
def test_a_timing_comes_through(drift_ppm: float | None) -> None:
    """A Timing arrives unchanged; every later header has the count of its steps."""
    timing = Timing(drift_ppm, 1.5, 3)
    header, item = unpacked([bytes(part) for part in packed(REQUEST, 0, timing, timing.steps)])
    assert (header.kind, item) == ("timing", timing)
    header, item = unpacked([bytes(part) for part in packed(REQUEST, 0, None, timing.steps)])
    assert (header.kind, header.steps, item) == ("alive", 3, None)


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"{}"],
        [b"\xff\xfe", b"x"],
        [msgspec.json.encode(Header("t", 0, "frame", 0, 0, (3, 5, 3)))],
        [msgspec.json.encode(Header("t", 0, "frame", 0, 0, (3, 5, 3))), b"short"],
        [msgspec.json.encode(Header("t", 0, "frame", 0, 0, (-3, -5, 3))), bytes(45)],
        [msgspec.json.encode(Header("t", 0, "frame", 0, 0, (45,))), bytes(45)],
        [msgspec.json.encode(Header("t", 0, "chunk", 0, 0, (1,), 0)), bytes(4)],
        [msgspec.json.encode(Header("t", 0, "chunk", 0, 0, ())), b""],
    ],
    ids=range(9),
)
def test_a_foreign_message_is_refused(parts: list[bytes]) -> None:
    """A message that cannot be ours raises WireError and no other exception."""
    with pytest.raises(WireError):
        unpacked(parts)


@pytest.mark.parametrize("source", [File("/a b.mp4", loop=True), Url("rtsp://u:p@h/x", "udp"), Synthetic(video=False)])
def test_a_request_comes_through(source: Source) -> None:
    """Each kind of source survives the line of JSON that carries the request."""
    request = msgspec.structs.replace(REQUEST, source=source)
    assert msgspec.json.decode(msgspec.json.encode(request), type=StartRequest) == request


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "url", "url": "file:///etc/passwd"}',
        '{"kind": "url", "url": "camera"}',
        '{"kind": "url", "url": "rtsp://h/x", "open_timeout_s": 0}',
        '{"kind": "url", "url": "rtsp://[::1/x"}',
        '{"kind": "file", "path": ""}',
        '{"kind": "file", "path": "a.mp4", "lop": true}',
        '{"kind": "synthetic", "video": false, "audio": false}',
        '{"kind": "camera2"}',
    ],
)
def test_a_wrong_specification_is_refused(text: str) -> None:
    """An impossible specification is a validation error, as in the configuration."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Source)


def test_names_hold_no_secret() -> None:
    """The name of a URL has no user, password or query."""
    assert name_of(Url("rtsp://admin:hunter2@10.0.0.7:554/live?token=abc")) == "rtsp://10.0.0.7:554/live"


@pytest.mark.parametrize("sign", "/?#")
def test_a_password_that_looks_like_a_port_is_refused_and_not_shown(sign: str) -> None:
    """Digits before / ? or # in a password look like a port: such a URL is refused, written out or as a secret."""
    url = f"rtsp://admin:2024{sign}cam@10.0.0.5/stream"
    assert shown(url) == "rtsp://..."
    with pytest.raises(ValueError, match="an @ after its host and port") as written:
        Url(url)
    with pytest.raises(ValueError, match="an @ after its host and port") as secret:
        Url("${CAM}").filled({"CAM": url})
    assert "2024" not in f"{written.value} {secret.value}"
    Url("rtsp://u:${P}@${H}/a@b").filled({"P": f"2024{sign}@", "H": "h"})
    Url("http://h/live?user=me%40h")
