"""A live URL: a network camera over RTSP, an HLS or MJPEG stream over HTTP, a transport stream over UDP, ..."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import partial

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Frame, Media, MediaFormat, Timing, end_of
from perceiverd.sources.decode import container, diagnosis
from perceiverd.sources.decode.decoders import DecodeCounts
from perceiverd.sources.live import pulled, pushed
from perceiverd.sources.specs import Url, shown

INTERVALS, FORGET = 4, 0.98
"""Audio or video is missing after 4 times its longest recent interval. Each further interval makes the older ones count
less by this factor. A camera may send a frame every 10 s, and this is no reason to open it again."""
APART_NS = 3 * NS_PER_S // 2
"""Within a playlist that has both, audio and video are less than this apart."""
INTERVAL_MOST_NS = 60 * NS_PER_S


def media(spec: Url, wanted: MediaFormat, clock: Clock = now_ns) -> Iterator[Media | Timing | None]:
    """Yield live-stamped media as they come; None while nothing is due. Raises MediaError, and ends in no other way."""
    counts = DecodeCounts()
    items = container.read(
        spec.url,
        wanted,
        options=_options(spec),
        open_timeout_s=spec.open_timeout_s,
        read_timeout_s=spec.read_timeout_s,
        live=True,
        counts=counts,
        why=partial(diagnosis.why, spec),
        use=spec,
        log_track=True,
    )
    items = _while_complete(spec, items, counts)
    name = shown(spec.url)
    yield from pushed(name, items, clock, counts) if spec.pushed else pulled(name, items, clock)
    # FFmpeg reports a server's death like the end of a file.
    raise MediaError(f"{shown(spec.url)}: the stream ended; check the device and the network")


def _options(spec: Url) -> dict[str, str]:
    """FFmpeg's options for this URL. Raises MediaError if an RTSP server cannot be reached."""
    options = {"analyzeduration": "2000000"} if spec.pushed else {}  # in microseconds
    scheme = spec.url.lower().partition(":")[0]
    if scheme in ("rtsp", "rtsps"):
        options["rtsp_transport"] = spec.transport
        # The answer to DESCRIBE describes all streams, so FFmpeg need not search the media for them.
        options["analyzeduration"] = "500000"
        # Limits the wait for one answer: after a network was cut, a new try succeeds sooner than one that hangs.
        options["timeout"] = str(round(spec.read_timeout_s * 1_000_000))  # in microseconds
        # We connect before FFmpeg does, because it would wait long and explain little. Not for other schemes: their
        # servers may accept one connection only.
        if text := diagnosis.unreachable(spec):
            raise MediaError(f"{shown(spec.url)}: {text}")
    if scheme in diagnosis.SECURE:
        # FFmpeg trusts every certificate by default, and may look for authorities where this system has none.
        authorities = spec.ca_file or ssl.get_default_verify_paths().cafile
        options |= {"tls_verify": str(int(spec.verify))} | ({"ca_file": authorities} if authorities else {})
    return options


def _while_complete(spec: Url, items: Iterator[Media], counts: DecodeCounts | None = None) -> Iterator[Media]:
    """The same items, until audio or video that came before is missing for `read_timeout_s` while the other continues.

    Then it raises MediaError, as if both were missing. If the missing kind does not return after that, the stream
    continues with what it has. This uses the times of media, because media come in bursts; a clock that is set counts
    for a second at most.

    A playlist with audio of its own needs less time: behind a discontinuity FFmpeg reads only the track whose clock is
    less, until it has reached the other one's. Opened again, both begin behind it.
    """
    counts = counts or DecodeCounts()
    joins: dict[type[Media], int] = {}
    newest_ns: dict[type[Media], int] = {}
    interval_ns: dict[type[Media], float] = {}
    missing_ns: dict[type[Media], int] = {}
    for item in items:
        kind, at_ns = type(item), end_of(item)
        step_ns = max(0, at_ns - newest_ns.get(kind, at_ns))
        if kind in newest_ns:
            interval_ns[kind] = max(min(step_ns, INTERVAL_MOST_NS), FORGET * interval_ns.get(kind, 0.0))
        newest_ns[kind], missing_ns[kind], joins[kind] = at_ns, 0, counts.joins
        for other in interval_ns.keys() - {kind}:
            missing_ns[other] += min(step_ns, NS_PER_S)
            is_apart = not spec.pushed and counts.joins > joins[other]
            if is_apart and missing_ns[other] >= APART_NS:
                raise MediaError(f"{shown(spec.url)}: audio and video are apart at a discontinuity; opening it again")
            if missing_ns[other] >= max(spec.read_timeout_s * NS_PER_S, INTERVALS * interval_ns[other]):
                missing, present = ("video", "audio") if other is Frame else ("audio", "video")
                raise MediaError(
                    f"{shown(spec.url)}: no {missing} for {missing_ns[other] / NS_PER_S:.0f} s, while its {present} "
                    "continues; opening it again"
                )
        yield item
