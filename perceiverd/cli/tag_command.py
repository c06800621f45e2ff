"""The declaration of `tag`: names, options, help. It imports the module that does the work when it runs."""

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from perceiverd.cli.console import DEVICE, ENGINE, MODEL


def tag(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Audio and video files, URLs, FIFOs, or - for standard input; with --out also folders.", metavar="FILE"
        ),
    ],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="text, jsonl, csv, html, vtt, srt, audacity, raven, rttm or parquet; with --out several, as in "
            "vtt,jsonl.",
            metavar="NAMES",
        ),
    ] = "text",
    out: Annotated[
        str | None,
        typer.Option(
            help="Write the outputs of each file into this folder. If such a run is interrupted, the same command "
            "resumes it.",
            metavar="FOLDER",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="With --out: also tag folders within folders.")
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="With --out: in folders, take only files that match, such as '*.mp4' or 'door/*'. Can be repeated.",
            metavar="PATTERN",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="With --out: leave out matching files and folders. Can be repeated.", metavar="PATTERN"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="With --out: in folders, take only files that were changed since a date, or a time ago such as 7d.",
            metavar="WHEN",
        ),
    ] = None,
    skip_done: Annotated[
        bool, typer.Option("--skip-done", help="With --out: leave out unchanged files that an earlier run has done.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="With --out: tag N files at the same time. Default: a third of the cores; on a GPU as many as there "
            "are cores, whose windows share batches; with --ray all cores, or all GPUs.",
            metavar="N",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Tag on many workers with Ray, and write Parquet into --out, which may be a bucket. local starts Ray "
            "on this machine; otherwise auto, or HOST:PORT of a cluster. FILE may be a folder, a pattern, a bucket, "
            "or @LIST. Needs the extra `ray`.",
            metavar="local|ADDRESS",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Print the K best labels.", metavar="K")] = 5,
    hop: Annotated[
        float | None,
        typer.Option(
            help="Seconds from the start of one window to the start of the next. Default: the configuration's hop_s if "
            "events are made, otherwise the window's length.",
            metavar="S",
        ),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Write the scores of each window, as text does by default.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Write each event: label, start and end. jsonl and csv do so by default.")
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Write the mean over the windows of each file. jsonl does so by default.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Use the thresholds in [events] of this configuration.", metavar="FILE")
    ] = None,
    model: Annotated[str | None, MODEL] = None,
    device: Annotated[str, DEVICE] = "auto",
    engine: Annotated[Literal["auto", "torch", "onnxruntime"], ENGINE] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Windows that the network scores together.", metavar="N")] = 16,
    conceal: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=10,
            help="Fill holes in audio and video of up to S seconds; 0 fills none. Default: the configuration's "
            "conceal_s.",
            metavar="S",
        ),
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--output", help="Write to this file instead of standard output.", metavar="FILE")
    ] = None,
    only: Annotated[
        Literal["audio", "video"] | None, typer.Option(help="Use only the audio, or only the video.")
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(help="Audio track: its number from 0, or its language code, such as eng.", metavar="TRACK"),
    ] = None,
    channel: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Use only this channel, from 1. Default: a mix of all.", metavar="N"),
    ] = None,
    gain_db: Annotated[float, typer.Option(min=-60, max=60, help="Amplify the audio by this.", metavar="DB")] = 0.0,
    highpass_hz: Annotated[
        float | None,
        typer.Option(min=1, max=8000, help="Remove what is below this frequency: wind and hum.", metavar="HZ"),
    ] = None,
    embed: Annotated[
        float,
        typer.Option(
            min=0,
            max=500,
            help="With --format html: put media files of up to MB megabytes into the page, so that you can send it "
            "alone. The page links to larger files.",
            metavar="MB",
        ),
    ] = 0.0,
    raw: Annotated[
        str | None,
        typer.Option(
            help="The files are audio samples without a container. FORMAT is s16le, s32le, f32le, u8, mulaw or alaw.",
            metavar="FORMAT,RATE,CHANNELS",
        ),
    ] = None,
    decoder: Annotated[
        Literal["cpu", "gpu", "auto"],
        typer.Option(
            help="Who decodes video. gpu: an NVIDIA GPU, if it has the codec; otherwise the CPU. auto: gpu for 1080p "
            "and above."
        ),
    ] = "cpu",
) -> None:
    """Label the audio and video of files."""
    # A hop below a millisecond would give thousands of windows a second; it is certainly a mistake.
    if hop is not None and not (math.isfinite(hop) and hop >= 0.001):
        raise typer.BadParameter(f"expected a number of seconds >= 0.001, got {hop:g}", param_hint="'--hop'")
    folder = {
        "--recursive": recursive,
        "--include": include,
        "--exclude": exclude,
        "--since": since,
        "--skip-done": skip_done,
        "--jobs": jobs,
    }
    if out is None and (given := next((name for name, value in folder.items() if value), None)):
        raise typer.BadParameter("needs --out", param_hint=f"'{given}'")
    if out is not None and into is not None:
        raise typer.BadParameter("cannot be combined with --output", param_hint="'--out'")
    if ray is not None:
        refused = {"--raw": raw, "--config": config, "--events": events, "--summary": summary, **folder, "--jobs": None}
        refused["--decoder"] = decoder != "cpu"
        if given := next((name for name, value in refused.items() if value), None):
            raise typer.BadParameter("cannot be combined with --ray", param_hint=f"'{given}'")
        if out is None:
            raise typer.BadParameter("needs --out", param_hint="'--ray'")
    from perceiverd.cli.tag import FolderCommand, TagCommand, media_options, moment, record_kinds, run
    from perceiverd.offline.folders.walk import Selection

    command = TagCommand(
        files=files,
        formats=formats,
        top=top,
        hop_s=hop,
        kinds=record_kinds(scores=scores, events=events, summary=summary),
        config=config,
        model=model,
        device=device,
        engine=engine,
        batch=batch,
        output=into,
        folder=None
        if out is None
        else FolderCommand(
            out=Path(out),
            selection=Selection(recursive, moment(since), tuple(include or ()), tuple(exclude or ())),
            skip_done=skip_done,
            jobs=jobs,
        ),
        use=media_options(only, track, channel, gain_db, highpass_hz),
        conceal_s=conceal,
        raw=raw,
        embed_bytes=round(embed * 1e6),
        video=decoder,
    )
    if ray is not None and out is not None:
        from perceiverd.cli.tag_cluster import run as run_on_cluster

        raise typer.Exit(run_on_cluster(command, ray, out, jobs))
    raise typer.Exit(run(command))
