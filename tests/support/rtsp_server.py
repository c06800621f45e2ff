"""A network camera for tests, for the system's Python: `rtsp_server.py ADDRESS PORT [USER:PASSWORD] [CERTIFICATE.pem]`.

It serves H.264 and AAC at /camera: a white flash with a beep each second, and a different frame each time. One clock
stamps audio and video. It prints `ready PORT` once it listens, and ends when its standard input closes.
"""

from __future__ import annotations

import array
import math
import random
import sys
import threading
import time
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - after the versions are set

WIDTH, HEIGHT, FPS = 320, 240, 15
RATE_HZ, PIECE = 48_000, 960  # 20 ms
SHOWN_S = 0.1
LATEST_NS = Gst.SECOND // 4
"""Items that are this late are dropped, as a camera does that was suspended."""
LAUNCH = (
    f"( appsrc name=pictures is-live=true format=time max-buffers=8 leaky-type=downstream "
    f"caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1 ! queue max-size-buffers=30 "
    f"leaky=downstream ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=400 key-int-max={FPS} threads=1 ! "
    "rtph264pay name=pay0 pt=96 config-interval=1 "
    f"appsrc name=sound is-live=true format=time max-buffers=50 leaky-type=downstream "
    f"caps=audio/x-raw,format=S16LE,layout=interleaved,rate={RATE_HZ},channels=1 ! queue leaky=downstream ! "
    "audioconvert ! avenc_aac ! rtpmp4gpay name=pay1 pt=97 )"
)


def _second() -> bytes:
    """A second of audio, s16: a beep, then faint noise, because a real microphone is never silent."""
    chance, samples = random.Random(0), array.array("h")
    for number in range(RATE_HZ):
        beeps = number < SHOWN_S * RATE_HZ
        samples.append(
            round(16_000 * math.sin(2 * math.pi * 1000 * number / RATE_HZ)) if beeps else chance.randint(-30, 30)
        )
    return samples.tobytes()


class Feeder(threading.Thread):
    """Feeds frames and audio into a pipeline, each at its time."""

    def __init__(self, media: Any) -> None:
        super().__init__(daemon=True)
        bin_ = media.get_element()
        self._pictures, self._sound = bin_.get_by_name("pictures"), bin_.get_by_name("sound")
        self._over = False
        media.connect("unprepared", lambda _: self.end())

    def end(self) -> None:
        self._over = True

    def run(self) -> None:
        second = _second()
        white = bytes([235]) * (WIDTH * HEIGHT) + bytes([128]) * (WIDTH * HEIGHT // 2)
        frame = piece = 0
        while not self._over:
            # Until the pipeline plays, it has no clock, or the base time 0. Then get_current_running_time() is the time
            # since the machine started, we would push frames of that time, and have none for now.
            clock, base = self._pictures.get_clock(), self._pictures.get_base_time()
            if clock is None or not base:
                time.sleep(0.005)
                continue
            now = clock.get_time() - base
            while (at := frame * Gst.SECOND // FPS) <= now:
                if now - at < LATEST_NS:
                    flashes = at % Gst.SECOND < SHOWN_S * Gst.SECOND
                    self._push(self._pictures, white if flashes else _bars(frame), at, Gst.SECOND // FPS)
                frame += 1
            while (at := piece * PIECE * Gst.SECOND // RATE_HZ) <= now:
                if now - at < LATEST_NS:
                    first = piece * PIECE % RATE_HZ * 2
                    self._push(self._sound, second[first : first + 2 * PIECE], at, PIECE * Gst.SECOND // RATE_HZ)
                piece += 1
            time.sleep(0.01)

    def _push(self, appsrc: Any, data: bytes, at: int, lasts: int) -> None:
        buffer = Gst.Buffer.new_wrapped(data)
        buffer.pts, buffer.duration = at, lasts
        # It refuses buffers (FLUSHING) while the pipeline changes its state. Only "unprepared" ends this thread.
        appsrc.emit("push-buffer", buffer)


def _bars(frame: int) -> bytes:
    """A grey frame with a bright column that moves."""
    at = frame * 4 % (WIDTH - 16)
    line = bytes([60]) * at + bytes([160]) * 16 + bytes([60]) * (WIDTH - 16 - at)
    return line * HEIGHT + bytes([128]) * (WIDTH * HEIGHT // 2)


def _guard(server: Any, factory: Any, password: str | None, certificate: str | None) -> None:
    if password is None and certificate is None:
        return
    auth, role = GstRtspServer.RTSPAuth(), "viewer"
    if certificate:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(certificate))
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", role)
    if password:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(*password.split(":", 1), token)
    else:
        auth.set_default_token(token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role(role, "media.factory.access", True)
    permissions.add_permission_for_role(role, "media.factory.construct", True)
    factory.set_permissions(permissions)


def main() -> None:
    address, port, *more = sys.argv[1:]
    password, certificate = (*(each or None for each in more), None, None)[:2]
    Gst.init(None)
    server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
    server.set_address(address)
    server.set_service(port)
    factory.set_launch(LAUNCH)
    factory.set_shared(True)
    factory.connect("media-configure", lambda _, media: Feeder(media).start())
    server.get_mount_points().add_factory("/camera", factory)
    _guard(server, factory, password, certificate)
    if not server.attach(None):
        sys.exit("cannot listen")
    # Clients that vanish without a goodbye leave sessions behind.
    GLib.timeout_add_seconds(5, lambda: server.get_session_pool().cleanup() >= 0)
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IOCondition.HUP, lambda *_: loop.quit())
    print("ready", server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
