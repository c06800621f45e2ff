"""Pictures, clips and sounds of events: which file belongs to an event, and opening it.

A browser names an event and a kind, never a path. The path comes from the daemon's message. It is opened only below the
daemon's media folder, step by step, and no step may be a symbolic link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from perceiverd.history import StoredEvent
from perceiverd.web.answers import Media
from perceiverd.web.settings import WatchedDaemon

TYPES: Mapping[Media, str] = {
    "picture": "image/jpeg",
    "clip": "video/webm",
    "sound": "audio/flac",
    "spectrogram": "image/jpeg",
}
"""The content types."""
SUFFIXES = (".jpg", ".mkv", ".flac")
"""Of the files that the daemon writes."""
SOUND, CLIP = ".flac", ".mkv"


@dataclass(frozen=True, slots=True)
class MediaFolder:
    """The folder of one daemon's snapshots."""

    here: str
    """Its path on this machine."""
    there: PurePosixPath
    """Its path on the daemon's machine, as messages name it."""

    def open(self, path: str) -> int | None:
        """A descriptor for reading the regular file that the daemon calls by this path; None if there is none."""
        try:
            parts = PurePosixPath(path).relative_to(self.there).parts
        except ValueError:
            return None
        if not parts or ".." in parts or "\0" in path:
            return None
        try:
            return _open_below(self.here, parts)
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class MediaFolders:
    """The folders by the name of the daemon."""

    folders: Mapping[str, MediaFolder]

    @classmethod
    def of(cls, daemons: Mapping[str, WatchedDaemon]) -> MediaFolders:
        """Those that are configured."""
        return cls(
            {
                name: MediaFolder(each.media, PurePosixPath(each.media_on_daemon or each.media))
                for name, each in daemons.items()
                if each.media
            }
        )

    def paths(self, event: StoredEvent) -> dict[Media, str]:
        """The path, as the daemon names it, of each kind of media that the event may have."""
        snapshot, clip = event.details.snapshot, event.details.clip
        # A stream without video has a picture of the spectrogram, and a clip that is a sound.
        has_video = not (clip or "").endswith(SOUND)
        found: dict[Media, str] = {}
        if snapshot is not None:
            found["picture" if has_video else "spectrogram"] = snapshot
        if clip is not None:
            found["clip" if has_video else "sound"] = clip
            if has_video and "audio" in event.details.modalities:
                found["sound"] = found["spectrogram"] = clip  # made of the clip
        return found

    def kinds(self, event: StoredEvent) -> set[Media]:
        """The kinds of media whose files exist."""
        folder = self.folders.get(event.machine)
        if folder is None:
            return set()
        found: set[Media] = set()
        exists: dict[str, bool] = {}
        for kind, path in self.paths(event).items():
            if path not in exists:
                descriptor = folder.open(path)
                exists[path] = descriptor is not None
                if descriptor is not None:
                    os.close(descriptor)
            if exists[path]:
                found.add(kind)
        return found

    def clip_path(self, event: StoredEvent) -> Path | None:
        """The path on this machine of the event's clip or sound; None if there is none."""
        folder, path = self.folders.get(event.machine), event.details.clip
        if folder is None or path is None or (descriptor := folder.open(path)) is None:
            return None
        os.close(descriptor)
        return Path(folder.here) / PurePosixPath(path).relative_to(folder.there)

    def open(self, event: StoredEvent, kind: Media) -> tuple[int, bool] | None:
        """A descriptor for one kind of media of this event, and whether it must be made of a clip; None for none."""
        folder, path = self.folders.get(event.machine), self.paths(event).get(kind)
        if folder is None or path is None or PurePosixPath(path).suffix not in SUFFIXES:
            return None
        descriptor = folder.open(path)
        return None if descriptor is None else (descriptor, path.endswith(CLIP))


def _open_below(folder: str, parts: tuple[str, ...]) -> int:
    """The file at these steps below the folder. Raises OSError, also for symbolic links and for what is no file."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the operator's own folder may be a link
    try:
        for step in parts[:-1]:
            before, at = at, os.open(step, flags | os.O_DIRECTORY, dir_fd=at)
            os.close(before)
        descriptor = os.open(parts[-1], flags | os.O_NONBLOCK, dir_fd=at)  # a pipe must not block
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(parts[-1])
    return descriptor
