"""The credits of a corpus, as Markdown for a model's card: packages, licences, seconds and authors.

Authors are listed if their licence demands attribution (Creative Commons BY). Reads only the corpus's index and its
recipe.
"""

import re
from collections import defaultdict
from pathlib import Path

import msgspec

from perceiverd.core.errors import MediaError
from perceiverd.training.data.corpus import RATE_HZ, Clip, Corpus
from perceiverd.training.data.recipe import CorpusSource, Recipe

# Long names of Creative Commons licences that some packages use.
_SHORT = (
    (r"(?i)^creative commons attribution-sharealike (\d[\d.]*\d).*", r"CC-BY-SA-\1"),
    (r"(?i)^creative commons attribution (\d[\d.]*\d).*", r"CC-BY-\1"),
    (r"(?i)^creative commons zero.*", "CC0-1.0"),
)


def credits_of(folder: Path) -> str:
    """The credits of a corpus: of the training split and the held-out ones. Raises MediaError if it is no corpus."""
    try:
        recipe = msgspec.json.decode((folder / "recipe.json").read_bytes(), type=Recipe)
        clips = Corpus(folder).clips
    except OSError as error:
        raise MediaError(f"{folder}: has no corpus with its recipe: {error.strerror}: {error.filename}") from error
    trained = [clip for clip in clips if clip.split == "train"]
    parts = [_packages(recipe, trained), _held_out(recipe, clips), _authors(trained)]
    return "\n\n".join(part for part in parts if part) + "\n"


def licence(name: str) -> str:
    """The short name of a Creative Commons licence; any other name unchanged."""
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


def _named(source: CorpusSource) -> str:
    by = f", by {source.program}" if source.program and source.name != source.program.split()[0] else ""
    return f"{source.name} ({source.kind}{by})"


def _licences(clips: list[Clip]) -> str:
    """The licences, longest first; if there are several, with their seconds."""
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
        ("validation", "Held out for validation"),
        ("test", "Held out for the test"),
        ("rendered", "Held out of the rendered sounds, which are not real"),
    ):
        mine = [clip for clip in clips if clip.split == split]
        names = [source.name for source in recipe.source if any(clip.source == source.name for clip in mine)]
        listed = ", ".join(
            f"{name} ({_licences(own)}; {_seconds(own)} s)"
            for name in names
            if (own := [clip for clip in mine if clip.source == name])
        )
        if listed:
            lines.append(f"{what}: {listed}.")
    return "\n\n".join(lines)


def _authors(clips: list[Clip]) -> str:
    """The authors whose licence demands attribution, one line each, with links to their works if they are known."""
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
        links = "; ".join(filter(None, found))
        lines.append(f"* {name}: {links}" if links else f"* {name}")
    return "\n".join(lines).strip()


def _seconds(clips: list[Clip]) -> str:
    return f"{sum(clip.samples for clip in clips) / RATE_HZ:.0f}"
