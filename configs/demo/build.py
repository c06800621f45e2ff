"""Builds the demo clip, its truth and its credits from three Debian packages.

It combines real photographs, with pan and zoom, and real recordings. Nobody filmed these scenes, so the table of true
labels lists what can be heard and what can be seen separately. Nothing used here may be used for training.

    python configs/demo/build.py [folder with the .deb files, or where to download them]
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import soxr

from perceiverd.training.data.packages import read_rcc

Image = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]

PACKAGES = ("gcompris-qt-data", "scratch", "lomiri-wallpapers-16.04")

WIDTH, HEIGHT = 640, 360
FRAME_RATE = 25
SAMPLE_RATE = 48_000
SEGMENT_FRAMES = 80
SEGMENT_S = SEGMENT_FRAMES / FRAME_RATE  # 3.2 s
SEGMENT_SAMPLES = SEGMENT_FRAMES * SAMPLE_RATE // FRAME_RATE  # 153600

LOUDNESS = 0.1
"""RMS of the loudest 0.4 s of each segment, full scale 1: as from a microphone close by, without clipping."""
ROOM_NOISE = 3e-4
"""RMS of the noise in all segments, about -70 dBFS: a microphone is never digitally silent."""


@dataclass(frozen=True)
class Work:
    """A photograph or a recording, with the credits in the package's own files."""

    package: str
    path: str
    """Path inside the package; for gcompris after `archive.rcc:`."""
    title: str
    author: str
    licence: str
    source: str


@dataclass(frozen=True)
class View:
    """A 16:9 crop of a photograph: centre and width, as fractions of the photograph's width and height.

    The model gets only the middle square, so the animal's head must be there.
    """

    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Segment:
    """3.2 s of one photograph with one recording; the crop moves from `start` to `end`."""

    picture: Work
    start: View
    end: View
    sound: Work | None
    """None for room noise alone."""
    begins_s: tuple[float, ...]
    """When the recording starts, in seconds after the segment's start. Repetitions come after a natural pause."""
    heard: str
    """The most specific names of AudioSet. Their ancestors are true too."""
    seen: str
    offset_s: float = 0.0
    """Where the recording starts, in seconds from its own beginning."""


def commons(title: str, author: str, licence: str, archive: str, path: str) -> Work:
    source = "https://commons.wikimedia.org/wiki/File:" + title.replace(" ", "_")
    return Work("gcompris-qt-data", f"{archive}.rcc:gcompris/src/activities/{path}", title, author, licence, source)


def scratch(path: str) -> Work:
    author = "Massachusetts Institute of Technology (Scratch 1.4)"
    source = "http://download.scratch.mit.edu/scratch-1.4.0.6.src.tar.gz"
    return Work("scratch", f"usr/share/scratch/Media/Sounds/{path}", path, author, "CC BY-SA 3.0", source)


def farm(name: str, title: str, author: str, licence: str) -> Work:
    path = f"explore_farm_animals/resource/animals/{name}.webp"
    return commons(title, author, licence, "explore_farm_animals", path)


def erase(name: str, title: str, author: str, licence: str) -> Work:
    return commons(title, author, licence, "erase", f"erase/resource/{name}.webp")


def music(name: str, title: str, author: str, licence: str) -> Work:
    return commons(title, author, licence, "explore_world_music", f"explore_world_music/resource/music/{name}")


MOUNTAINS = Work(
    "lomiri-wallpapers-16.04",
    "usr/share/backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "Picos de Europa",
    "Aitzol Berasategi",
    "CC BY 4.0",
    "https://gitlab.com/ubports/development/core/lomiri-wallpapers",
)

SEGMENTS = (
    Segment(
        farm("chicken", "Chickens at Tranquilles B&B.JPG", "Tranquilles", "public domain"),
        View(0.50, 0.52, 1.0), View(0.52, 0.45, 0.82),
        scratch("Animal/Rooster.wav"), (0.1, 1.75),
        "Chicken, rooster|Crowing, cock-a-doodle-doo", "Chicken, rooster",
    ),
    Segment(
        farm("dog", "German-shepherd-4040871920. (2).jpg", "Hans Kemperman", "public domain"),
        View(0.72, 0.40, 0.56), View(0.76, 0.32, 0.46),
        scratch("Animal/Dog1.wav"), (0.15, 0.5, 0.85, 1.5, 1.82, 2.4, 2.75),
        "Dog|Bark", "Dog",
    ),
    Segment(
        MOUNTAINS, View(0.45, 0.38, 0.75), View(0.60, 0.38, 0.75),
        scratch("Animal/Crickets.wav"), (0.0,),
        "Cricket|Insect", "",
    ),
    Segment(
        erase("horse", "Zaniskari Horse in Ladakh.jpg", "Eatcha", "CC BY-SA 4.0"),
        View(0.56, 0.46, 0.80), View(0.52, 0.50, 1.0),
        scratch("Animal/Horse.wav"), (0.1, 1.75),
        "Neigh, whinny", "Horse",
    ),
    Segment(
        erase("kitten", "A posing kitten (Flickr).jpg", "GalgenTX", "CC BY 2.0"),
        View(0.50, 0.50, 1.0), View(0.50, 0.45, 0.65),
        scratch("Animal/Kitten.wav"), (0.2, 1.8),
        "Meow", "Cat",
    ),
    Segment(
        farm("sheep", "Sheep (33625876592).jpg", "Rob Mitchell", "CC0 1.0"),
        View(0.45, 0.45, 1.0), View(0.48, 0.42, 0.88),
        None, (), "", "Sheep",
    ),
    Segment(
        music("africa.webp", "Bata drums.jpg", "Kenneth Ritchards", "public domain"),
        View(0.50, 0.52, 0.80), View(0.50, 0.50, 1.0),
        music("africa.ogg", "Djembe accompaniment.ogg", "Michi Henning", "CC0 1.0"), (0.0,),
        "Drum", "Drum", offset_s=7.2,
    ),
    Segment(
        MOUNTAINS, View(0.70, 0.60, 0.60), View(0.62, 0.55, 0.75),
        scratch("Human/BabyCry.mp3"), (0.3,),
        "Baby cry, infant cry|Crying, sobbing", "",
    ),
    Segment(
        music("mexico.webp", "Wikipedia 10 Guadalajara - Mariachi.jpg", "Elidealista", "CC0 1.0"),
        View(0.34, 0.36, 0.68), View(0.31, 0.34, 0.52),
        scratch("Instruments/Trumpet1.wav"), (0.0,),
        "Trumpet", "Trumpet",
    ),
    Segment(
        music("america.webp", "Onalaska-Practice6.jpg", "Tom Harpel", "CC BY 2.0"),
        View(0.60, 0.50, 0.85), View(0.55, 0.50, 0.92),
        music("america.ogg", "08-rock-n-roll.ogg", "Karel Schmiedberger", "CC BY 3.0"), (0.0,),
        "Drum kit", "Drum kit|Electric guitar", offset_s=2.4,
    ),
)  # fmt: skip


def unpack(debs: Path) -> Path:
    """Unpack PACKAGES and return the folder. Missing .deb files are downloaded into `debs`."""
    root = debs / "unpacked"
    for package in PACKAGES:
        if not list(debs.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=debs, check=True)
        (deb,) = debs.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
    return root


def content(work: Work, root: Path) -> bytes:
    archive, colon, inside = work.path.partition(":")
    if not colon:
        return (root / work.path).read_bytes()
    return dict(read_rcc((root / "usr/share/gcompris-qt/rcc" / archive).read_bytes()))[inside]


def decode_sound(encoded: bytes, scratch_file: Path) -> Samples:
    """Decode to mono samples (N,) at SAMPLE_RATE, full scale 1."""
    scratch_file.write_bytes(encoded)
    with av.open(str(scratch_file)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono")
        parts = [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        rate = container.streams.audio[0].rate
    return np.asarray(soxr.resample(np.concatenate(parts), rate, SAMPLE_RATE), np.float32)


def loudest_rms(sound: Samples) -> float:
    """RMS of the loudest 0.4 s. Pauses do not change it, so a short bark is not made louder than a long neigh."""
    window = 2 * SAMPLE_RATE // 5
    energy = np.cumsum(np.pad(sound.astype(np.float64) ** 2, (window, window)))
    return float(np.sqrt((energy[window:] - energy[:-window]).max() / window))


def render_sound(segment: Segment, sound: Samples, rng: np.random.Generator) -> Samples:
    """The SEGMENT_SAMPLES samples of a segment: the recording at each start, faded at the edges, with room noise."""
    out = np.zeros(SEGMENT_SAMPLES, np.float32)
    for begin_s in segment.begins_s:
        begin = int(begin_s * SAMPLE_RATE)
        part = sound[int(segment.offset_s * SAMPLE_RATE) :][: SEGMENT_SAMPLES - begin]
        out[begin : begin + len(part)] += part
    if segment.begins_s:
        out *= min(LOUDNESS / loudest_rms(out), 0.8 / float(np.abs(out).max()))
    fade = SAMPLE_RATE // 50  # 20 ms, to avoid clicks
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    out[:fade] *= ramp
    out[-fade:] *= ramp[::-1]
    return out + rng.normal(0, ROOM_NOISE, SEGMENT_SAMPLES).astype(np.float32)


def render_pictures(segment: Segment, picture: Image, rng: np.random.Generator) -> Iterator[Image]:
    """SEGMENT_FRAMES BGR frames (HEIGHT, WIDTH, 3): a slow pan and zoom with the small shake of a hand."""
    height, width = picture.shape[:2]
    shrink = max(1.0, min(segment.start.width, segment.end.width) * width / WIDTH)
    # Scaled down by area first: warpAffine alone would alias on a photograph five times too large.
    picture = np.asarray(
        cv2.resize(picture, (round(width / shrink), round(height / shrink)), interpolation=cv2.INTER_AREA), np.uint8
    )
    height, width = picture.shape[:2]
    shake = np.cumsum(rng.normal(0, 0.12, (SEGMENT_FRAMES, 2)), axis=0)
    shake -= np.linspace(0, 1, SEGMENT_FRAMES)[:, None] * shake[-1]
    for frame in range(SEGMENT_FRAMES):
        t = frame / (SEGMENT_FRAMES - 1)
        t = t * t * (3 - 2 * t)
        a, b = segment.start, segment.end
        crop = (a.width + (b.width - a.width) * t) * width
        crop = min(crop, width, height * WIDTH / HEIGHT)
        x = (a.x + (b.x - a.x) * t) * width + shake[frame, 0]
        y = (a.y + (b.y - a.y) * t) * height + shake[frame, 1]
        scale = WIDTH / crop
        x = float(np.clip(x, crop / 2, width - crop / 2))
        y = float(np.clip(y, crop * HEIGHT / WIDTH / 2, height - crop * HEIGHT / WIDTH / 2))
        matrix = np.array([[scale, 0, WIDTH / 2 - scale * x], [0, scale, HEIGHT / 2 - scale * y]])
        yield np.asarray(
            cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE),
            np.uint8,
        )


def encode(path: Path, frames: Iterator[Image], sound: Samples) -> None:
    """Write H.264 and AAC into an MP4 with its index first, so that it plays while it loads."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "24", "preset": "medium", "g": "50"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, options={"b": "96k"}, layout="mono")
        step = SAMPLE_RATE // FRAME_RATE
        for number, picture in enumerate(frames):
            image = av.VideoFrame.from_ndarray(picture, format="bgr24")
            image.pts, image.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(video.encode(image))
            samples = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(sound[None, number * step : (number + 1) * step]), format="fltp", layout="mono"
            )
            samples.sample_rate, samples.pts, samples.time_base = SAMPLE_RATE, number * step, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(samples))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def file_credit(work: Work | None) -> str:
    return f"{work.title} by {work.author}, {work.licence}" if work else ""


def write_truth(path: Path) -> None:
    lines = ["start_s\tend_s\theard\tseen\tpicture\tsound"]
    for number, segment in enumerate(SEGMENTS):
        start_s, end_s = number * SEGMENT_S, (number + 1) * SEGMENT_S
        works = f"{file_credit(segment.picture)}\t{file_credit(segment.sound)}"
        lines.append(f"{start_s:.1f}\t{end_s:.1f}\t{segment.heard}\t{segment.seen}\t{works}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


CREDITS_HEAD = """\
# Credits of the demo clip

`build.py` makes `clip.mp4` from the works below. It crops, pans and zooms the photographs. It cuts the recordings,
repeats them with pauses, adjusts their level and mixes them to mono. The clip as a whole is under
[CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/); each work keeps its own licence. Authors and licences
are from the copyright and attribution files of the Debian packages. GCompris had cropped and sharpened some photographs
before (its files say so for the horse and the kitten).

Licences: [CC0 1.0](https://creativecommons.org/publicdomain/zero/1.0/),
[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/), [CC BY 3.0](https://creativecommons.org/licenses/by/3.0/),
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/), [CC BY-SA 3.0](https://creativecommons.org/licenses/by-sa/3.0/).

| when | what | title | author | licence | source | package and file |
|--:|---|---|---|---|---|---|
"""


def write_credits(path: Path) -> None:
    rows = [
        f"| {number * SEGMENT_S:.1f} s | {kind} | {work.title} | {work.author} | {work.licence} | <{work.source}> "
        f"| {work.package}: `{work.path}` |\n"
        for number, segment in enumerate(SEGMENTS)
        for kind, work in (("picture", segment.picture), ("sound", segment.sound))
        if work is not None
    ]
    path.write_text(CREDITS_HEAD + "".join(rows), encoding="utf-8")


def main(debs: Path, here: Path) -> None:
    debs.mkdir(parents=True, exist_ok=True)
    root = unpack(debs)
    rng = np.random.default_rng(0)

    def sound_of(segment: Segment) -> Samples:
        if segment.sound is None:
            return np.zeros(0, np.float32)
        return decode_sound(content(segment.sound, root), debs / ("decode" + Path(segment.sound.path).suffix))

    def frames() -> Iterator[Image]:
        for segment in SEGMENTS:
            encoded = np.frombuffer(content(segment.picture, root), np.uint8)
            picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
            if picture is None:
                raise ValueError(segment.picture.path)
            yield from render_pictures(segment, np.asarray(picture, np.uint8), rng)

    sound = np.concatenate([render_sound(segment, sound_of(segment), rng) for segment in SEGMENTS])
    encode(here / "clip.mp4", frames(), sound)
    write_truth(here / "truth.tsv")
    write_credits(here / "CREDITS.md")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/tmp/perceiverd-demo"), Path(__file__).parent)
