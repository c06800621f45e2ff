"""What a corpus owes to whom, as Markdown for a model's card: packages, licences, seconds, and authors.

Authors are named where a licence asks for it (Creative Commons with attribution). It reads a corpus's
index and the recipe it was made by, nothing else.
"""

import re
from collections import defaultdict
from pathlib import Path

import msgspec

from perceiverd.core.errors import MediaError
from perceiverd.training.data.corpus import RATE_HZ, Clip, Corpus
from perceiverd.training.data.recipe import Recipe, Source

# Long names of Creative Commons' licences, as some packages give them.
_SHORT = (
    (r"(?i)^creative commons attribution-sharealike (\d[\d.]*\d).*", r"CC-BY-SA-\1"),
    (r"(?i)^creative commons attribution (\d[\d.]*\d).*", r"CC-BY-\1"),
    (r"(?i)^creative commons zero.*", "CC0-1.0"),
)


def credits_of(folder: Path) -> str:
    """The Markdown of a corpus's sounds that are trained on, and what is held out; raises MediaError."""
    try:
        recipe = msgspec.json.decode((folder / "recipe.json").read_bytes(), type=Recipe)
        clips = Corpus(folder).clips
    except OSError as error:
        raise MediaError(f"{folder}: no corpus with its recipe here: {error.strerror}: {error.filename}") from error
    trained = [clip for clip in clips if clip.split == "train"]
    parts = [_packages(recipe, trained), _held_out(recipe, clips), _authors(trained)]
    return "\n\n".join(part for part in parts if part) + "\n"


def licence(name: str) -> str:
    """The short name of a Creative Commons licence; any other as it is."""
    for pattern, short in _SHORT:
        name = re.sub(pattern, short, name)
    return name


def _packages(recipe: Recipe, clips: list[Clip]) -> str:
    lines = ["| source | version | licence | seconds |", "|---|---|---|--:|"]
    for source in recipe.source:
        mine = [clip for clip in clips if clip.source == source.name]
        if mine:
            lines.append(f"| {_named(source)} | {source.version} | {_licences(mine)} | {_seconds(mine)} |")
    lines.append(f"| all | | | {_seconds(clips)} |")
    return "\n".join(lines)


def _named(source: Source) -> str:
    by = f", by {source.program}" if source.program and source.name != source.program.split()[0] else ""
    return f"{source.name} ({source.kind}{by})"


def _licences(clips: list[Clip]) -> str:
    """Licences, the one with most seconds first; with seconds where there are several."""
    samples: dict[str, int] = defaultdict(int)
    for clip in clips:
        samples[licence(clip.licence)] += clip.samples
    if len(samples) == 1:
        return next(iter(samples))
    most = sorted(samples.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} ({count / RATE_HZ:.0f} s)" for name, count in most)


def _held_out(recipe: Recipe, clips: list[Clip]) -> str:
    lines = []
    for split, what in (
        ("validation", "Held out, to choose by"),
        ("test", "Held out, to test on"),
        ("rendered", "Held out of what is rendered, and no real sound"),
    ):
        mine = [clip for clip in clips if clip.split == split]
        names = [source.name for source in recipe.source if any(clip.source == source.name for clip in mine)]
        told = ", ".join(
            f"{name} ({_licences(own)}; {_seconds(own)} s)"
            for name in names
            if (own := [clip for clip in mine if clip.source == name])
        )
        if told:
            lines.append(f"{what}: {told}.")
    return "\n\n".join(lines)


def _authors(clips: list[Clip]) -> str:
    """Who made what under a licence that asks to be named, a line an author; works are links where they are known."""
    works: dict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for clip in clips:
        short = licence(clip.licence)
        if "CC-BY" in short.replace(" ", "-") and clip.author:
            name, _, work = clip.author.partition(" [")
            works[clip.source, short, name].setdefault(f"[{work}" if work else "", None)
    lines: list[str] = []
    last = None
    for (source, short, name), found in sorted(works.items(), key=lambda item: [part.lower() for part in item[0]]):
        if (source, short) != last:
            lines += ["", f"{source}, {short}:", ""]
            last = (source, short)
        told = "; ".join(filter(None, found))
        lines.append(f"* {name}: {told}" if told else f"* {name}")
    return "\n".join(lines).strip()


def _seconds(clips: list[Clip]) -> str:
    return f"{sum(clip.samples for clip in clips) / RATE_HZ:.0f}"
