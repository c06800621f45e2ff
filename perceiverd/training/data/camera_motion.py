"""Endless windows of video, made from still images: pan, zoom, shake, light, blur, compression, obstructions.

A window is a function of seed and index alone. This is synthetic video, and every report of results on it must say so.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from perceiverd.training.data.images import CachedImage, Split, read_index, read_pixels

NOISE_MARGIN = 64
"""Each frame's sensor noise is cut from a field that is larger than a frame by this many pixels."""
USUAL_SIDE = 96
"""Blur and motion below are given for frames of this many pixels a side; they grow with the frame."""

EMPTY_SHARE = 0.12
"""Share of the windows without a wanted class that show only a background."""
OTHER_SHARE = 0.45
"""Share of the same windows that show a negative or unlabelled image, which has only soft targets."""
SECOND_SHARE = 0.1
"""Share of the windows with a cut-out that show a second one."""


@dataclass(frozen=True)
class Trajectory:
    """The position of the camera or of an object in each frame."""

    x: npt.NDArray[np.float64]
    """(T,), in sides of the window; 0.5 is the middle."""
    y: npt.NDArray[np.float64]
    """(T,), the same."""
    zoom: npt.NDArray[np.float64]
    """(T,), a factor of the size at rest."""
    turn: npt.NDArray[np.float64]
    """(T,), radians."""


def random_trajectory(rng: np.random.Generator, reach: float, frames: int) -> Trajectory:
    """A drift, a sway and a tremble around the middle, each of about `reach` sides of the window or less."""
    t = np.linspace(-0.5, 0.5, frames)
    if rng.random() < 0.35:  # a camera on a tripod, or an object at rest
        reach = 0.0
    drift = rng.normal(0, reach * 0.5, (2, 1)) * t
    sway = rng.normal(0, reach * 0.25, (2, 1)) * np.sin(2 * np.pi * rng.uniform(0.3, 2.5) * t + rng.uniform(0, 6.3))
    tremble = rng.normal(0, reach * rng.choice([0.0, 0.03, 0.1]), (2, frames))
    x, y = 0.5 + drift + sway + tremble
    zoom = np.exp(rng.normal(0, reach * 0.6) * t)
    turn = rng.normal(0, 0.1) + rng.normal(0, reach * 0.3) * t
    return Trajectory(x, y, zoom, turn)


def warp(
    pixels: npt.NDArray[np.uint8], path: Trajectory, side: int, size: float, *, flip: bool, border: int
) -> npt.NDArray[np.uint8]:
    """Frames (T, side, side, C) of pixels (H, W, C) along a path; `size` is the wanted longest side in pixels."""
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    if scale < 0.6:  # shrunk by area first, because a warp that skips pixels makes edges flicker
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
    """RGBA with colour times opacity, so that interpolation keeps edges clean; RGB if all pixels are opaque."""
    if pixels[..., 3].min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    alpha = pixels[..., 3:].astype(np.uint16)
    return np.concatenate([(pixels[..., :3] * alpha // 255).astype(np.uint8), pixels[..., 3:]], axis=2)


def composite(back: npt.NDArray[np.uint8], front: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Draw premultiplied RGBA frames over RGB frames of the same (T, side, side), in place; returns the latter."""
    for below, above in zip(back, front, strict=True):
        through = 255 - above[..., 3]
        cv2.multiply(below, cv2.merge((through, through, through)), dst=below, scale=1 / 255)
        cv2.add(below, cv2.cvtColor(above, cv2.COLOR_RGBA2RGB), dst=below)
    return back


class VideoMixer:
    """Windows of one split's images. Nothing changes after construction, so threads may share a mixer."""

    def __init__(self, cache_dir: Path, split: Split, seed: int, *, frames: int, side: int) -> None:
        """`frames`: of one window, each `side` pixels high and wide."""
        cv2.setNumThreads(1)  # OpenCV's other threads take longer to start than an image of 96 pixels takes
        images = read_index(cache_dir)
        targets = np.load(cache_dir / "targets.npy")  # (P, 527) float16
        kept = [n for n, image in enumerate(images) if image.split == split]
        self.images: list[CachedImage] = [images[n] for n in kept]
        self.targets: npt.NDArray[np.float16] = targets[kept]
        self._pixels = [premultiplied(read_pixels(cache_dir, image)) for image in self.images]
        self._seed, self._frames, self._side = seed, frames, side
        kinds = np.array([image.kind for image in self.images])
        self._objects = np.flatnonzero(kinds == "object")
        opaque = np.array([pixels.shape[2] == 3 for pixels in self._pixels], np.bool_)
        self._backgrounds = np.flatnonzero((kinds == "background") & opaque)
        self._others = np.flatnonzero((kinds == "negative") | (kinds == "unlabelled"))
        self._of_class = {
            int(label): self._objects[self.targets[self._objects, label] == 1]
            for label in np.flatnonzero((self.targets[self._objects] == 1).any(axis=0))
        }
        # Groups of images with the same labels in the rules, without ancestors. A group is drawn by the square root of
        # its number of images: with equal chances one stream would be drawn as often as forty birds.
        names = sorted({image.labels for image in self.images if image.labels})
        self._groups = [
            np.array([n for n in self._objects if self.images[n].labels == labels], np.intp) for labels in names
        ]
        weights = np.sqrt([len(group) for group in self._groups])
        self._group_chances = weights / weights.sum()
        # One field for all windows: 220,000 normals for each window would take longer than everything else.
        field = (side + NOISE_MARGIN, side + NOISE_MARGIN, 3)
        self._noise = np.random.default_rng(seed).standard_normal(field, np.float32)
        # An image that shows nothing has 0 for every label that can be seen.
        self._empty_targets = np.where((self.targets == 0).any(axis=0), np.float16(0), np.float16(np.nan))  # (527,)

    def has(self, audioset_class: int) -> bool:
        """Whether an image has this label or one below it."""
        return audioset_class in self._of_class

    def draw(
        self, index: int, audioset_class: int | None = None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
        """Frames (T, side, side, 3) RGB and targets (527,); NaN is unknown.

        With a class, the window shows an image of it if there is one. Else it shows any image or an empty background.
        """
        rng = np.random.default_rng((self._seed, index))
        number = self._choose(rng, audioset_class)
        if number is None:
            return self._finish(self._background(rng), rng), self._empty_targets.copy()
        return self.render(number, rng)

    def render(
        self, number: int, rng: np.random.Generator, *, clear: bool = False
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
        """A window of the image at `number` in `images`; a clear window has motion, but its quality is not reduced."""
        pixels, targets = self._pixels[number], self.targets[number].copy()
        if pixels.shape[2] == 3:
            frames = self._photograph(pixels, rng)
        else:
            frames = composite(self._background(rng), self._cut_out(pixels, rng, 1.0))
            if rng.random() < SECOND_SHARE and not clear:
                second = int(rng.choice(self._objects))
                if self._pixels[second].shape[2] == 4:
                    frames = composite(frames, self._cut_out(self._pixels[second], rng, 0.6))
                    targets = np.fmax(targets, self.targets[second])
        return frames if clear else self._finish(frames, rng), targets

    def _choose(self, rng: np.random.Generator, audioset_class: int | None) -> int | None:
        if audioset_class is not None and self.has(audioset_class):
            return int(rng.choice(self._of_class[audioset_class]))
        dice = rng.random()
        if dice < EMPTY_SHARE:
            return None
        if dice < EMPTY_SHARE + OTHER_SHARE and len(self._others):
            return int(rng.choice(self._others))
        return int(rng.choice(self._groups[rng.choice(len(self._groups), p=self._group_chances)]))

    def _photograph(self, pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """RGB frames of an opaque image that fills the window, near its middle square, which the daemon crops."""
        height, width = pixels.shape[:2]
        fill = self._side * max(height, width) / min(height, width)  # longest side when the shortest just fits
        size = fill * np.exp(rng.uniform(0.02, 0.25))
        spare = np.array([size * width / max(height, width), size * height / max(height, width)]) / self._side - 1
        path = random_trajectory(rng, 0.15, self._frames)
        centre = rng.uniform(-0.25, 0.25, 2) * spare
        path = Trajectory(path.x + centre[0], path.y + centre[1], path.zoom, path.turn * 0.5)
        return warp(pixels, path, self._side, size, flip=rng.random() < 0.5, border=cv2.BORDER_REFLECT_101)

    def _cut_out(self, pixels: npt.NDArray[np.uint8], rng: np.random.Generator, part: float) -> npt.NDArray[np.uint8]:
        """RGBA frames of an object in the window, from a third of its side to a little too large."""
        size = self._side * part * np.exp(rng.uniform(np.log(0.42), np.log(1.45)))
        height, width = np.array(pixels.shape[:2]) * size / max(pixels.shape[:2]) / self._side
        path = random_trajectory(rng, 0.25, self._frames)
        room = np.maximum(np.array([1 - width, 1 - height]) / 2, 0.08)
        centre = rng.uniform(-1, 1, 2) * room
        # The object never leaves the window, because its label is a target.
        x, y = np.clip(path.x + centre[0], 0.15, 0.85), np.clip(path.y + centre[1], 0.15, 0.85)
        path = Trajectory(x, y, path.zoom, path.turn)
        return warp(pixels, path, self._side, size, flip=rng.random() < 0.5, border=cv2.BORDER_CONSTANT)

    def _background(self, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """RGB frames without an object: a crop of a background, a gradient, a flat colour or coarse noise."""
        dice = rng.random()
        if dice < 0.8 and len(self._backgrounds):
            pixels = self._pixels[int(rng.choice(self._backgrounds))]
            if rng.random() < 0.4:  # any crop of a scene is a scene
                height, width = pixels.shape[:2]
                side = int(min(height, width) * rng.uniform(0.35, 0.8))
                y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
                pixels = pixels[y : y + side, x : x + side]
            return self._photograph(pixels, rng)
        if dice < 0.88:
            small = rng.integers(0, 256, (2, 2, 3), np.uint8)
        elif dice < 0.95:
            small = rng.integers(0, 256, (1, 1, 3), np.uint8)
        else:
            side = int(rng.integers(4, 25))
            small = np.clip(rng.normal(rng.uniform(60, 200, 3), rng.uniform(5, 30), (side, side, 3)), 0, 255)
        plain = np.asarray(cv2.resize(small.astype(np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC), np.uint8)
        return self._photograph(plain, rng)

    def _finish(self, frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """What happens between a scene and a file: obstruction, light, lens, sensor, compression."""
        if rng.random() < 0.08:
            bend(frames, rng.uniform(0.05, 0.35))
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
        if rng.random() < 0.1:  # a camera without colour, or one that sees infra-red at night
            frames[...] = frames.mean(axis=3, keepdims=True).astype(np.uint8)
        return frames


def obstruct(frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Draw a bar or patch of one colour, at rest or moving, no larger than a quarter of the window."""
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


def bend(frames: npt.NDArray[np.uint8], amount: float) -> None:
    """Bend the frames as a wide-angle lens does: straight lines bulge outwards, and the corners shrink."""
    side = frames.shape[1]
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    scale = (1 + amount * (x**2 + y**2)) / (1 + amount)
    places = [np.asarray((axis * scale + 1) * (side - 1) / 2, np.float32) for axis in (x, y)]
    for frame in frames:
        frame[...] = cv2.remap(frame, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def expose(frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One gain, gamma and tint for the window, and a small drift of the gain."""
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
    """Blur the frames as a bad focus, motion along a line or a sensor with fewer pixels does."""
    dice, size = rng.random(), frames.shape[1]
    larger = size / USUAL_SIDE
    if dice < 0.5:
        sigma = rng.uniform(0.4, 1.6) * larger
        for frame in frames:
            cv2.GaussianBlur(frame, (0, 0), sigma, dst=frame)
    elif dice < 0.75:
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
    """All frames through JPEG, as one tall image."""
    _, encoded = cv2.imencode(".jpg", frames.reshape(-1, frames.shape[2], 3), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8).reshape(frames.shape)


def validation(
    cache_dir: Path, split: Split, *, frames: int, side: int, views: int = 4
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Fixed windows (V, frames, side, side, 3) and targets (V, 527): `views` of each object and negative image.

    The first half of an image's views is clear; the others have the reduced quality of training (dark, blurred,
    compressed). `split="test"` gives the gcompris photographs. Targets of 0 and 1 are facts, NaN is unknown, and values
    between are the teacher's scores.
    """
    mixer = VideoMixer(cache_dir, split, seed=0, frames=frames, side=side)
    chosen = [n for n, image in enumerate(mixer.images) if image.kind in ("object", "negative")]
    windows = [
        mixer.render(n, np.random.default_rng((n, view)), clear=2 * view < views)
        for n in chosen
        for view in range(views)
    ]
    return np.stack([shown for shown, _ in windows]), np.stack([targets for _, targets in windows])
