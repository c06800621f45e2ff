"""The declaration of `eval`: names, options, help. It imports the module that does the work when it runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from perceiverd.cli.console import DEVICE, ENGINE


def evaluate(
    manifest: Annotated[
        Path,
        typer.Argument(
            help="CSV with the columns file, start_s, end_s, labels, or one of AudioSet's lists of segments.",
            metavar="MANIFEST",
        ),
    ],
    truth: Annotated[
        Literal["clips", "events"],
        typer.Option(
            help="What a row means. clips: the labels occur somewhere in the clip. events: the labels last from "
            "start_s to end_s, and are absent from the rest of the file."
        ),
    ] = "clips",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a bundled or imported model, or a model's folder. Give it twice to compare two models.",
            metavar="NAME|FOLDER",
        ),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            min=0.001,
            max=0.999,
            help="Also count events with this threshold for all labels. Can be repeated.",
            metavar="SCORE",
        ),
    ] = None,
    media: Annotated[
        Path | None, typer.Option(help="Folder of the clips, for AudioSet's lists.", metavar="FOLDER")
    ] = None,
    form: Annotated[
        Literal["auto", "perceiverd", "audioset"], typer.Option("--format", help="Format of the manifest.")
    ] = "auto",
    json: Annotated[
        Path | None, typer.Option("--json", help="Also write all numbers to this file.", metavar="FILE")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with plots to this file.", metavar="FILE")
    ] = None,
    skip: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="The exit status stays 0 if at most this share of the rows fails.", metavar="SHARE"
        ),
    ] = 0.0,
    hop: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Seconds from the start of one window to the start of the next. Default: the configuration's hop_s.",
            metavar="S",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Use the rules in [events] and the options in [window] of this configuration.", metavar="FILE"
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=10, max=100_000, help="Bootstrap draws for the confidence intervals.", metavar="N")
    ] = 500,
    device: Annotated[str, DEVICE] = "auto",
    engine: Annotated[Literal["auto", "torch", "onnxruntime"], ENGINE] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Windows that the network scores together.", metavar="N")] = 16,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Read N files at the same time. Default: 1; on a GPU as many as there are cores, whose windows share "
            "batches.",
            metavar="N",
        ),
    ] = None,
) -> None:
    """Measure one or two models on labelled files.

    The measures are the quality of scores, false alarms, the time to alert, and calibration.
    """
    from perceiverd.cli.evaluate import EvalCommand, run

    command = EvalCommand(
        manifest=manifest,
        truth=truth,
        manifest_format=form,
        media=media,
        models=tuple(model or ()),
        thresholds=tuple(threshold or ()),
        hop_s=hop,
        config=config,
        device=device,
        engine=engine,
        batch=batch,
        jobs=jobs,
        rounds=draws,
        skip=skip,
        json=json,
        html=html,
    )
    raise typer.Exit(run(command))
