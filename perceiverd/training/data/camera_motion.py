"""Endless video windows out of still pictures: pan, zoom, shake, light, blur, compression, things in the way.

A window is a function of seed and index alone. These are constructed moving pictures, not real video, and every
figure from them says so.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from perceiverd.training.data.images import Picture, Split, read_index, read_pixels

NOISE_MARGIN = 64
"""Pixels by which the field that each frame's sensor noise is cut from is larger than a frame."""
USUAL_SIDE = 96
"""Pixels of the frames for which blur and jolts below are given; they grow with larger frames."""

EMPTY_SHARE = 0.12
"""Of windows asked for without a class: those that show a background alone."""
OTHER_SHARE = 0.2
"""Of the same: those that show a negative or unlabelled picture, soft targets only."""
SECOND_SHARE = 0.1
"""Of windows with a cut-out: those that show a second one."""


@dataclass(frozen=True)
class Path2D:
    """Where the camera or an object is, frame by frame."""

    x: npt.NDArray[np.float64]
    """(T,), in sides of the window, 0.5 is the middle."""
    y: npt.NDArray[np.float64]
    zoom: npt.NDArray[np.float64]
    """(T,), times the size at rest."""
    turn: npt.NDArray[np.float64]
    """(T,), radians."""


def wander(rng: np.random.Generator, reach: float, frames: int) -> Path2D:
    """A drift, a sway and a tremble about the middle, none longer than about `reach` sides of the window."""
    t = np.linspace(-0.5, 0.5, frames)
    if rng.random() < 0.35:  # a camera on a tripod, a thing at rest
        reach = 0.0
    drift = rng.normal(0, reach * 0.5, (2, 1)) * t
    sway = rng.normal(0, reach * 0.25, (2, 1)) * np.sin(2 * np.pi * rng.uniform(0.3, 2.5) * t + rng.uniform(0, 6.3))
    tremble = rng.normal(0, reach * rng.choice([0.0, 0.03, 0.1]), (2, frames))
    x, y = 0.5 + drift + sway + tremble
    zoom = np.exp(rng.normal(0, reach * 0.6) * t)
    turn = rng.normal(0, 0.1) + rng.normal(0, reach * 0.3) * t
    return Path2D(x, y, zoom, turn)


def warp(
    pixels: npt.NDArray[np.uint8], path: Path2D, side: int, size: float, *, flip: bool, border: int
) -> npt.NDArray[np.uint8]:
    """Frames (T, side, side, C) of pixels (H, W, C), `size` being the wanted longest side in pixels."""
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    if scale < 0.6:  # shrunk by areas first: a warp that skips pixels would make edges crawl
        pixels = np.asarray(
            cv2.resize(
                pixels, (max(2, round(width * scale)), max(2, round(height * scale))), interpolation=cv2.INTER_AREA
            ),
            np.uint8,
        )
        height, width = pixels.shape[:2]
        scale = size / max(height, width)
    frames = np.empty((len(path.x), side, side, pixels.shape[2]), np.uint8)
    mirror = -1.0 if flip else 1.0
    at_rest = all(np.ptp(values) == 0 for values in (path.x, path.y, path.zoom, path.turn))
    for n in range(len(frames)):
        if n and at_rest:
            frames[n] = frames[0]
            continue
        zoom, turn = scale * path.zoom[n], path.turn[n]
        c, s = zoom * np.cos(turn), zoom * np.sin(turn)
        matrix = np.array([[mirror * c, -s, 0.0], [mirror * s, c, 0.0]])
        matrix[:, 2] = side * np.array([path.x[n], path.y[n]]) - matrix[:, :2] @ np.array([width / 2, height / 2])
        cv2.warpAffine(pixels, matrix, (side, side), dst=frames[n], flags=cv2.INTER_LINEAR, borderMode=border)
    return frames


def premultiplied(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGBA with colour times opacity, so that interpolation keeps edges clean; RGB where all is opaque."""
    if pixels[..., 3].min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    alpha = pixels[..., 3:].astype(np.uint16)
    return np.concatenate([(pixels[..., :3] * alpha // 255).astype(np.uint8), pixels[..., 3:]], axis=2)


def over(back: npt.NDArray[np.uint8], front: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Premultiplied RGBA frames laid over RGB ones, of the same (T, side, side), which are changed."""
    for below, above in zip(back, front, strict=True):
        through = 255 - above[..., 3]
        cv2.multiply(below, cv2.merge((through, through, through)), dst=below, scale=1 / 255)
        cv2.add(below, cv2.cvtColor(above, cv2.COLOR_RGBA2RGB), dst=below)
    return back


class VideoMixer:
    """Windows of one split's pictures. Nothing changes after construction, so threads may share one."""

    def __init__(self, cache_dir: Path, split: Split, seed: int, *, frames: int, side: int) -> None:
        """`frames` of one window, each `side` pixels high and wide."""
        cv2.setNumThreads(1)  # 96-pixel pictures are done before OpenCV's other threads wake up
        pictures = read_index(cache_dir)
        targets = np.load(cache_dir / "targets.npy")  # (P, 527) float16
        kept = [n for n, picture in enumerate(pictures) if picture.split == split]
        self.pictures: list[Picture] = [pictures[n] for n in kept]
        self.targets: npt.NDArray[np.float16] = targets[kept]
        self._pixels = [premultiplied(read_pixels(cache_dir, picture)) for picture in self.pictures]
        self._seed, self._frames, self._side = seed, frames, side
        kinds = np.array([picture.kind for picture in self.pictures])
        self._objects = np.flatnonzero(kinds == "object")
        opaque = np.array([pixels.shape[2] == 3 for pixels in self._pixels])
        self._backgrounds = np.flatnonzero((kinds == "background") & opaque)
        self._others = np.flatnonzero((kinds == "negative") | (kinds == "unlabelled"))
        self._of_class = {
            int(label): self._objects[self.targets[self._objects, label] == 1]
            for label in np.flatnonzero((self.targets[self._objects] == 1).any(axis=0))
        }
        # Labels as the rules name them, without ancestors: each is as likely as any other, softened by how
        # many pictures it has, or one stream would be seen as often as forty birds.
        names = sorted({picture.labels for picture in self.pictures if picture.labels})
        self._groups = [
            np.array([n for n in self._objects if self.pictures[n].labels == labels], np.intp) for labels in names
        ]
        weights = np.sqrt([len(group) for group in self._groups])
        self._group_chances = weights / weights.sum()
        # Cut from one field: drawing 220,000 normals a window would take longer than everything else.
        field = (side + NOISE_MARGIN, side + NOISE_MARGIN, 3)
        self._noise = np.random.default_rng(seed).standard_normal(field, np.float32)
        self._unseen = np.where(np.isnan(self.targets[0]), np.float16(np.nan), np.float16(0))  # (527,)

    def has(self, audioset_class: int) -> bool:
        """Whether there is a labelled picture of this class or of one below it."""
        return audioset_class in self._of_class

    def draw(
        self, index: int, audioset_class: int | None = None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
        """Frames (T, side, side, 3) RGB and targets (527,), NaN where nothing is known.

        With a class, a picture of it if there is one; otherwise any picture, or an empty background.
        """
        rng = np.random.default_rng((self._seed, index))
        number = self._choose(rng, audioset_class)
        if number is None:
            return self._finish(self._background(rng), rng), self._unseen.copy()
        return self.render(number, rng)

    def render(
        self, number: int, rng: np.random.Generator, *, clear: bool = False
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
        """A window of the picture at `number` in `pictures`; a clear one is moved but not spoilt."""
        pixels, targets = self._pixels[number], self.targets[number].copy()
        if pixels.shape[2] == 3:
            frames = self._photograph(pixels, rng)
        else:
            frames = over(self._background(rng), self._cut_out(pixels, rng, 1.0))
            if rng.random() < SECOND_SHARE and not clear:
                second = int(rng.choice(self._objects))
                if self._pixels[second].shape[2] == 4:
                    frames = over(frames, self._cut_out(self._pixels[second], rng, 0.6))
                    targets = np.fmax(targets, self.targets[second])
        return frames if clear else self._finish(frames, rng), targets

    def _choose(self, rng: np.random.Generator, audioset_class: int | None) -> int | None:
        if audioset_class is not None and self.has(audioset_class):
            return int(rng.choice(self._of_class[audioset_class]))
        lot = rng.random()
        if lot < EMPTY_SHARE:
            return None
        if lot < EMPTY_SHARE + OTHER_SHARE and len(self._others):
            return int(rng.choice(self._others))
        return int(rng.choice(self._groups[rng.choice(len(self._groups), p=self._group_chances)]))

    def _photograph(self, pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """RGB frames of an opaque picture that fills the window: near its middle square, as the daemon crops it."""
        height, width = pixels.shape[:2]
        fill = self._side * max(height, width) / min(height, width)  # longest side when the shortest just fits
        size = fill * np.exp(rng.uniform(0.02, 0.25))
        spare = np.array([size * width / max(height, width), size * height / max(height, width)]) / self._side - 1
        path = wander(rng, 0.15, self._frames)
        centre = rng.uniform(-0.25, 0.25, 2) * spare
        path = Path2D(path.x + centre[0], path.y + centre[1], path.zoom, path.turn * 0.5)
        return warp(pixels, path, self._side, size, flip=rng.random() < 0.5, border=cv2.BORDER_REFLECT_101)

    def _cut_out(self, pixels: npt.NDArray[np.uint8], rng: np.random.Generator, part: float) -> npt.NDArray[np.uint8]:
        """RGBA frames of an object somewhere in the window, from a third of its side to a little too large."""
        size = self._side * part * np.exp(rng.uniform(np.log(0.42), np.log(1.45)))
        height, width = np.array(pixels.shape[:2]) * size / max(pixels.shape[:2]) / self._side
        path = wander(rng, 0.25, self._frames)
        room = np.maximum(np.array([1 - width, 1 - height]) / 2, 0.08)
        centre = rng.uniform(-1, 1, 2) * room
        # Never out of sight: a window says what can be seen in it.
        x, y = np.clip(path.x + centre[0], 0.15, 0.85), np.clip(path.y + centre[1], 0.15, 0.85)
        path = Path2D(x, y, path.zoom, path.turn)
        return warp(pixels, path, self._side, size, flip=rng.random() < 0.5, border=cv2.BORDER_CONSTANT)

    def _background(self, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """RGB frames without an object: a picture's crop, a gradient, a flat colour or coarse noise."""
        lot = rng.random()
        if lot < 0.8 and len(self._backgrounds):
            pixels = self._pixels[int(rng.choice(self._backgrounds))]
            if rng.random() < 0.4:  # any crop of a scene is a scene
                height, width = pixels.shape[:2]
                side = int(min(height, width) * rng.uniform(0.35, 0.8))
                y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
                pixels = pixels[y : y + side, x : x + side]
            return self._photograph(pixels, rng)
        if lot < 0.88:
            small = rng.integers(0, 256, (2, 2, 3), np.uint8)
        elif lot < 0.95:
            small = rng.integers(0, 256, (1, 1, 3), np.uint8)
        else:
            side = int(rng.integers(4, 25))
            small = np.clip(rng.normal(rng.uniform(60, 200, 3), rng.uniform(5, 30), (side, side, 3)), 0, 255)
        plain = np.asarray(cv2.resize(small.astype(np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC), np.uint8)
        return self._photograph(plain, rng)

    def _finish(self, frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """What lies between a scene and a file: something in the way, light, lens, sensor, compression."""
        if rng.random() < 0.2:
            obstruct(frames, rng)
        frames = expose(frames, rng)
        if rng.random() < 0.35:
            soften(frames, rng)
        if rng.random() < 0.5:
            field = self._noise * np.float32(rng.uniform(1, 10))
            for n in range(self._frames):
                y, x = rng.integers(0, NOISE_MARGIN, 2)
                cv2.add(frames[n], field[y : y + self._side, x : x + self._side], dst=frames[n], dtype=cv2.CV_8U)
        if rng.random() < 0.4:
            frames = compress(frames, int(rng.integers(15, 85)))
        if rng.random() < 0.04:  # a camera without colour
            frames[...] = frames.mean(axis=3, keepdims=True).astype(np.uint8)
        return frames


def obstruct(frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """A bar or patch of one colour in the way, at rest or passing, no larger than a quarter of the window."""
    side = frames.shape[1]
    width, height = rng.uniform(0.08, 0.5, 2) * side
    if rng.random() < 0.3:
        width, height = rng.uniform(0.05, 0.15) * side, 2.0 * side
    x, y = rng.uniform(0, side, 2)
    step = rng.normal(0, 4 * side / USUAL_SIDE, 2) * (rng.random() < 0.5)
    colour = rng.integers(0, 256, 3)
    for n in range(len(frames)):
        left, top = x + step[0] * n - width / 2, y + step[1] * n - height / 2
        rows = slice(max(0, int(top)), max(0, int(top + height)))
        frames[n, rows, max(0, int(left)) : max(0, int(left + width))] = colour


def expose(frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Gain, gamma and tint a window, and a small drift of the gain along it."""
    gamma = np.exp(rng.normal(0, 0.25))
    gain = np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.08, 3))
    lift = rng.normal(0, 0.04)
    drift = np.exp(rng.normal(0, 0.06) * np.linspace(-1, 1, len(frames)))
    tone = (np.arange(256) / 255.0) ** gamma
    for n in range(len(frames)):
        table = np.clip(255 * (tone[:, None] * gain * drift[n] + lift), 0, 255).astype(np.uint8)  # (256, 3)
        cv2.LUT(frames[n], np.ascontiguousarray(table[None]), dst=frames[n])
    return frames


def soften(frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Out of focus, moved along a line, or taken by a sensor with fewer pixels."""
    lot, size = rng.random(), frames.shape[1]
    larger = size / USUAL_SIDE
    if lot < 0.5:
        sigma = rng.uniform(0.4, 1.6) * larger
        for frame in frames:
            cv2.GaussianBlur(frame, (0, 0), sigma, dst=frame)
    elif lot < 0.75:
        length = int(rng.integers(3, 8) * larger)
        shape = (1, length) if rng.random() < 0.7 else (length, 1)
        for frame in frames:
            cv2.blur(frame, shape[::-1], dst=frame)
    else:
        side = int(rng.integers(32, 80) * larger)
        for frame in frames:
            small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
            cv2.resize(small, (size, size), dst=frame, interpolation=cv2.INTER_LINEAR)


def compress(frames: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """All frames through JPEG as one tall picture."""
    _, encoded = cv2.imencode(".jpg", frames.reshape(-1, frames.shape[2], 3), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8).reshape(frames.shape)


def validation(
    cache_dir: Path, split: Split, *, frames: int, side: int, views: int = 4
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Fixed windows (V, frames, side, side, 3) and targets (V, 527): `views` of every picture that isn't a background.

    The first half of a picture's views is clear, the others are spoilt as in training (dark, blurred, compressed).
    `split="test"` gives the gcompris photographs. Targets of 0 and 1 are facts, NaN is unknown, and
    what lies between is the teacher's opinion.
    """
    mixer = VideoMixer(cache_dir, split, seed=0, frames=frames, side=side)
    chosen = [n for n, picture in enumerate(mixer.pictures) if picture.kind in ("object", "negative")]
    windows = [
        mixer.render(n, np.random.default_rng((n, view)), clear=2 * view < views)
        for n in chosen
        for view in range(views)
    ]
    return np.stack([shown for shown, _ in windows]), np.stack([targets for _, targets in windows])
