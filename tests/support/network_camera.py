"""A real RTSP server in its own process, on a real network of its own that tests can cut and slow down."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Set
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = Path(__file__).parent / "rtsp_server.py"
PYTHON = "/usr/bin/python3"
"""Debian's Python, because GStreamer's bindings are Debian packages."""
NEEDS = (
    "needs GStreamer's RTSP server: apt-get install gir1.2-gst-rtsp-server-1.0 python3-gst-1.0 python3-gi "
    "gstreamer1.0-libav gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad "
    "gstreamer1.0-plugins-ugly"
)
ELEMENTS = ("appsrc", "x264enc", "avenc_aac", "rtph264pay", "rtpmp4gpay")
CHECK = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; "
    f"Gst.init(None); assert all(map(Gst.ElementFactory.find, {ELEMENTS!r}))"
)
READY_S = 20.0


@cache
def available() -> bool:
    """Whether this machine can run the RTSP server."""
    if not Path(PYTHON).exists():
        return False
    return not subprocess.run([PYTHON, "-c", CHECK], capture_output=True, check=False, timeout=60).returncode


@cache
def cuttable() -> bool:
    """Whether we can make networks: as root, in a kernel with namespaces and virtual Ethernet."""
    if os.geteuid() or not shutil.which("ip"):
        return False
    try:
        with Network(255):
            return True
    except (OSError, subprocess.SubprocessError):
        return False


class Network:
    """A network namespace at the end of a virtual cable; its context removes both."""

    def __init__(self, number: int) -> None:
        """`number`, 0..255, distinguishes several networks."""
        unique = f"{os.getpid() % 100_000}"
        self.namespace, self._here, self._there = f"pd{number}-{unique}", f"pd{number}h{unique}", f"pd{number}t{unique}"
        # 198.18.0.0/15 is reserved for tests of networks (RFC 2544).
        self.address, self._ours = f"198.18.{number}.2", f"198.18.{number}.1"

    def __enter__(self) -> Self:
        _ip("netns", "add", self.namespace)
        try:
            _ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self.namespace)
            _ip("addr", "add", f"{self._ours}/24", "dev", self._here)
            _ip("link", "set", self._here, "up")
            _ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", self._there)
            _ip("-n", self.namespace, "link", "set", self._there, "up")
            _ip("-n", self.namespace, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["ip", "link", "del", self._here], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)

    def cut(self) -> None:
        """Cut the cable at the camera's end, so that our end notices nothing."""
        _ip("-n", self.namespace, "link", "set", self._there, "down")

    def mend(self) -> None:
        _ip("-n", self.namespace, "link", "set", self._there, "up")

    def slow(self, kbits: int) -> None:
        """Limit the rate, as a bad radio link does; 0 removes the limit."""
        tc = ["ip", "netns", "exec", self.namespace, "tc", "qdisc"]
        if kbits:
            shaped = ["root", "tbf", "rate", f"{kbits}kbit", "burst", "4kb", "latency", "2s"]
            _run([*tc, "replace", "dev", self._there, *shaped])
        else:
            _run([*tc, "del", "dev", self._there, "root"])


class Camera:
    """A network camera at `url`, which runs in its context; tests can kill, freeze and restart it."""

    def __init__(
        self, network: Network | None = None, password: str | None = None, certificate: Path | None = None
    ) -> None:
        """`password` is USER:PASSWORD; a PEM file with key and certificate makes it rtsps."""
        self._network, self._password, self._certificate = network, password, certificate
        self._process: subprocess.Popen[str] | None = None
        self._address, self._port = network.address if network else "127.0.0.1", 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"rtsp{'s' if self._certificate else ''}://{self._address}:{self._port}/camera"

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process
        return self._process

    def serves(self, opened: Set[str]) -> bool:
        """Whether one of these connections, `tcp:HOST:PORT`, goes to this camera."""
        return f"tcp:{self._address}:{self._port}" in opened

    def start(self) -> None:
        """Start it at the same port as before; returns when it listens."""
        inside = ["ip", "netns", "exec", self._network.namespace] if self._network else []
        guarded = [self._password or "", str(self._certificate or "")]
        for _ in range(20):
            self._process = subprocess.Popen(
                [*inside, PYTHON, str(PROGRAM), self._address, str(self._port), *guarded],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )
            assert self._process.stdout
            line = self._process.stdout.readline().split()
            if line[:1] == ["ready"]:
                self._port = int(line[1])
                return
            self.kill()
            time.sleep(0.25)
        raise RuntimeError("the RTSP server does not start")

    def restart(self, password: str | None = None) -> None:
        """Restart it, with another password or with its own."""
        self.kill()
        own = self._password
        self._password = password or own
        self.start()
        self._password = own

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process = None

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, check=True, timeout=20)
