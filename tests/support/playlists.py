"""Playlists (HLS) with one for the audio and one for the video, made by ffmpeg and joined with discontinuities."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np

from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media

VIDEO = "color=c=black:s=84x60:r=25,drawbox=enable='lt(mod(t,1),0.12)':color=white:t=fill"
AUDIO = "aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t,1),0.1)':s=48000"
TRACKS = "a:0,agroup:sound,name:audio,default:yes v:0,agroup:sound,name:video"
HEAD = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:3", "#EXT-X-MEDIA-SEQUENCE:0"]


def write_part(folder: Path, seconds: float, begins_s: float) -> None:
    """Segments of 2 s with a flash and a beep each second, whose clock begins at `begins_s`."""
    folder.mkdir()
    inputs = ["-f", "lavfi", "-i", VIDEO, "-f", "lavfi", "-i", AUDIO, "-t", str(seconds), "-map", "0:v", "-map", "1:a"]
    codecs = ["-c:v", "libx264", "-bf", "0", "-g", "25", "-c:a", "aac", "-output_ts_offset", str(begins_s)]
    hls = ["-f", "hls", "-hls_time", "2", "-hls_list_size", "0", "-hls_segment_filename", "%v_%d.ts"]
    names = ["-var_stream_map", TRACKS, "-master_pl_name", "master.m3u8", "%v.m3u8"]
    command = ["ffmpeg", "-loglevel", "error", "-y", *inputs, *codecs, *hls, *names]
    subprocess.run(command, cwd=folder, check=True, timeout=60)


def joined_playlist(folder: Path, parts: list[tuple[float, float]], *, ends: bool = True) -> Path:
    """The master playlist of parts of (seconds, begins_s). A live one does not end."""
    for number, part in enumerate(parts):
        write_part(folder / f"part{number}", *part)
    for track in ("audio", "video"):
        lines = list(HEAD)
        for number in range(len(parts)):
            lines += ["#EXT-X-DISCONTINUITY"] if number else []
            for line in (folder / f"part{number}" / f"{track}.m3u8").read_text().splitlines():
                if line.startswith("#EXTINF"):
                    lines.append(line)
                elif line and not line.startswith("#"):
                    lines.append(f"part{number}/{line}")
        (folder / f"{track}.m3u8").write_text("\n".join([*lines, *(["#EXT-X-ENDLIST"] if ends else []), ""]))
    master = folder / "master.m3u8"
    master.write_text((folder / "part0" / "master.m3u8").read_text())
    return master


def flashes_and_beeps(items: list[Media]) -> tuple[list[int], list[int]]:
    """When each flash and each beep begins."""
    frames = [item for item in items if isinstance(item, Frame)]
    flashes = [b.start_ns for a, b in pairwise(frames) if a.pixels.mean() <= 127 < b.pixels.mean()]
    beeps, loud_ns = list[int](), -NS_PER_S
    for chunk in (item for item in items if isinstance(item, Chunk)):
        for loud in np.flatnonzero(np.abs(chunk.samples) > 0.2):
            at_ns = chunk.start_ns + int(loud) * NS_PER_S // chunk.rate_hz
            if at_ns - loud_ns > NS_PER_S // 10:
                beeps.append(at_ns)
            loud_ns = at_ns
    return flashes, beeps
