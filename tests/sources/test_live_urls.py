"""Live playlists (HLS) from a real server, over HTTP and HTTPS."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, VideoFormat
from perceiverd.sources import url
from perceiverd.sources.specs import Url

WANTED = MediaFormat(16000, VideoFormat(30, 42, 6.25))
WITHIN_S = 80.0


def flash(t: float) -> NDArray[np.uint8]:
    return np.full((60, 84, 3), 255 if t % 1 < 0.1 else 20, np.uint8)


def beep(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * 1000 * t) * (t % 1 < 0.1)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path, certificate: Path | None = None) -> Iterator[str]:
    """A web server for this folder; over TLS if it gets a PEM file with key and certificate."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        finally:  # otherwise a test that fails would hang: the server waits for its threads
            server.shutdown()
            thread.join(20)


@pytest.fixture
def playlist(clip: Callable[..., Path], tmp_path: Path) -> Path:
    """8 s as a live playlist of 2 s segments, without an end mark."""
    path = clip("a.ts", picture=flash, sound=beep, rate_hz=48000, seconds=8.0)
    folder = tmp_path / "hls"
    folder.mkdir()
    with (
        av.open(str(path)) as source,
        av.open(
            str(folder / "live.m3u8"),
            "w",
            format="hls",
            options={"hls_time": "2", "hls_list_size": "0", "hls_flags": "omit_endlist"},
        ) as target,
    ):
        tracks = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream.index]
                target.mux(packet)
    return folder / "live.m3u8"


def received(spec: Url, seconds: float) -> list[Media]:
    """The media of this many seconds, from the first one on."""
    items, began_s = list[Media](), time.monotonic()
    for item in url.media(spec, WANTED):
        if isinstance(item, Media):
            items.append(item)
        if items and items[-1].start_ns - items[0].start_ns > seconds * NS_PER_S:
            return items
        assert time.monotonic() - began_s < WITHIN_S
    raise AssertionError("a live URL has no end")


def in_sync(items: list[Media], within_ns: int = 40_000_000) -> None:
    frames = [item for item in items if isinstance(item, Frame)]
    flashes = [b.start_ns for a, b in pairwise(frames) if a.pixels.mean() <= 127 < b.pixels.mean()]
    beeps = list[int]()
    for chunk in (item for item in items if isinstance(item, Chunk)):
        for loud in np.flatnonzero(np.abs(chunk.samples) > 0.2):
            at_ns = chunk.start_ns + int(loud) * NS_PER_S // chunk.rate_hz
            if not beeps or at_ns - beeps[-1] > NS_PER_S // 2:
                beeps.append(at_ns)
    assert len(flashes) >= 2
    assert max(min(abs(each - flash_ns) for each in beeps) for flash_ns in flashes) < within_ns


def test_hls_over_http(playlist: Path) -> None:
    """A live playlist is replayed at its own rate, with flash and beep together."""
    with served(playlist.parent) as address:
        began_s = time.monotonic()
        items = received(Url(f"{address}/live.m3u8"), 3.5)
        assert time.monotonic() - began_s > 3
    in_sync(items)


def test_hls_over_https(playlist: Path, tmp_path: Path) -> None:
    """A playlist and its segments come over TLS only from a server whose certificate is configured."""
    certificate, together = tmp_path / "certificate.pem", tmp_path / "both.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=camera"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key.pem"), "-out", str(certificate)]
    subprocess.run([*made, *names], check=True, capture_output=True)
    together.write_bytes((tmp_path / "key.pem").read_bytes() + certificate.read_bytes())
    with served(playlist.parent, together) as address:
        with pytest.raises(MediaError, match=r"not trusted \(self-signed certificate\)"):
            received(Url(f"{address}/live.m3u8"), 1)
        in_sync(received(Url(f"{address}/live.m3u8", ca_file=str(certificate)), 3.5))


def test_a_missing_playlist(tmp_path: Path) -> None:
    """The error has the server's answer and what to do."""
    with served(tmp_path) as address, pytest.raises(MediaError, match=r"has nothing at /live\.m3u8 \(404\)"):
        received(Url(f"{address}/live.m3u8"), 1)
