"""Clips in forms that browsers play, made by one process at a time, and kept in memory for a while."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import OrderedDict
from dataclasses import dataclass, field

from perceiverd.core.errors import MediaError
from perceiverd.web.answers import Media
from perceiverd.web.pool import BusyError

CONVERT_S = 60.0
"""A clip of 10 s takes a second on a busy machine, most of it to load the libraries."""
MOST_WAITING = 16
"""Clips that wait at one time; a further one is refused."""
MOST_BYTES = 64_000_000
"""A converted clip is not larger than this."""
KEPT_BYTES = 96_000_000
"""Of all converted clips that are kept."""

Key = tuple[int, int, int, str]
"""Device, inode and time of change of the file, and the kind."""


@dataclass(slots=True)
class ClipConverter:
    """What was converted lately, and what is being converted."""

    converted: int = 0
    failed: int = 0
    _kept: OrderedDict[Key, bytes] = field(default_factory=OrderedDict)
    _running: dict[Key, asyncio.Task[bytes]] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def convert(self, descriptor: int, kind: Media) -> bytes:
        """The clip behind this descriptor, which is closed. Raises MediaError, or BusyError if too many wait."""
        info = os.fstat(descriptor)
        key = (info.st_dev, info.st_ino, info.st_mtime_ns, kind)
        if key in self._kept:
            os.close(descriptor)
            self._kept.move_to_end(key)
            return self._kept[key]
        if (task := self._running.get(key)) is not None:
            os.close(descriptor)
        elif len(self._running) >= MOST_WAITING:
            os.close(descriptor)
            raise BusyError("too many clips are being prepared at this moment; try again in some seconds")
        else:
            task = asyncio.get_running_loop().create_task(self._convert(descriptor, kind))
            self._running[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)  # others may wait for it, too

    def _done(self, key: Key, task: asyncio.Task[bytes]) -> None:
        del self._running[key]
        if task.cancelled() or task.exception() is not None:
            self.failed += 1
            return
        self.converted += 1
        self._kept[key] = task.result()
        while sum(map(len, self._kept.values())) > KEPT_BYTES:
            self._kept.popitem(last=False)

    async def _convert(self, descriptor: int, kind: str) -> bytes:
        try:
            async with self._turn:
                return await _run(descriptor, kind)
        finally:
            os.close(descriptor)


async def _run(descriptor: int, kind: str) -> bytes:
    """What the process gives. Raises MediaError."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perceiverd.web.convert", kind), stdin=descriptor, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(CONVERT_S):
            data, why = await process.communicate()
    except TimeoutError:
        raise MediaError(f"the clip could not be prepared within {CONVERT_S:.0f} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode or not data or len(data) > MOST_BYTES:
        lines = why.decode(errors="replace").strip().splitlines()
        raise MediaError(lines[-1] if lines else "the clip cannot be read")
    return data
