"""The commands of `perceiverd train` that train: distil, hush, rehearsal, fit. Other modules do the work."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from perceiverd.core.errors import ConfigError
from perceiverd.training.cli.options import (
    INTERRUPTED,
    Device,
    Hours,
    Images,
    Log,
    Model,
    Out,
    Pool,
    Pools,
    Seed,
    SightWheel,
    SoundWheel,
    Views,
    read_geometry,
    renamed,
)


def senses(
    geometry: Annotated[Path, typer.Option(metavar="FILE", help="Geometry of the model (TOML), with head senses.")],
    pool: Annotated[list[Path], Pools],
    views: Annotated[Path, Views],
    teacher_sound: Annotated[Path, SoundWheel],
    teacher_sight: Annotated[Path, SightWheel],
    out: Annotated[Path, Out],
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="NAME|FOLDER", help="Continue with the classifiers of a model of this geometry."
        ),
    ] = None,
    only: Annotated[Literal["both", "audio", "video"], typer.Option(help="Which classifiers learn.")] = "both",
    epochs: Annotated[float, typer.Option(min=0.01, help="How often each window is used.")] = 10.0,
    rate: Annotated[float, typer.Option(min=1e-9, help="Peak learning rate.")] = 3e-3,
    licence: Annotated[str, typer.Option(help="SPDX name of the weights' licence.")] = "NOASSERTION",
    float16: Annotated[bool, typer.Option("--float16", help="Store the weights in float16: half the file.")] = False,
    seed: Annotated[int, Seed] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Make a model that begins as its teachers, and fit their classifiers to pools and views.

    `distil --from` then teaches the Perceiver what both senses together say.
    """
    import torch

    from perceiverd.core.labels import ontology
    from perceiverd.model.card import load_card
    from perceiverd.model.checkpoint import load_network
    from perceiverd.training.distill import sense_fit
    from perceiverd.training.distill.output import claimed, write

    torch.set_num_threads(threads)
    wanted, card = read_geometry(geometry), load_card(start) if start else None
    if card and card.geometry != wanted:
        raise ConfigError(f"geometry: is not that of {card.name}; give the geometry of the model to continue from")
    names = ("audio", "video") if only == "both" else (only,)
    with claimed(out, card):
        network = load_network(card) if card else sense_fit.begun(wanted, teacher_sound, teacher_sight, seed)
        sense_fit.fit_all(network, pool, views, sense_fit.SenseSteps(epochs, rate, seed), names)
        dtype = torch.float16 if float16 else torch.float32
        write(out, network.eval(), wanted, ontology().labels, licence, dtype)


def distil(
    geometry: Annotated[Path, typer.Option(metavar="FILE", help="Geometry of the model (TOML).")],
    pool: Annotated[list[Path], Pools],
    out: Annotated[Path, Out],
    state: Annotated[Path, typer.Option(metavar="DIR", help="Folder in which the run saves its state, to be resumed.")],
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Time limit, over all resumptions.")] = None,
    batches: Annotated[
        int | None, typer.Option(min=1, help="Instead of minutes: number of batches, over all processes.")
    ] = None,
    pictures: Annotated[Path | None, Images] = None,
    views: Annotated[Path | None, Views] = None,
    teacher_sound: Annotated[Path | None, SoundWheel] = None,
    teacher_sight: Annotated[Path | None, SightWheel] = None,
    frozen_sound: Annotated[
        int, typer.Option(min=0, help="First layers of the audio teacher that are copied and not trained.")
    ] = 6,
    mix: Annotated[
        str, typer.Option(metavar="A,B,V", help="Shares of windows with audio only, with both, with video only.")
    ] = "0.5,0.2,0.3",
    matched: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the windows with both whose picture shows the sound's source.")
    ] = 0.6,
    start: Annotated[
        str | None, typer.Option("--from", metavar="NAME|FOLDER", help="Start from a model of the same geometry.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1e-9, help="Peak learning rate.")] = 1e-3,
    batch: Annotated[int, typer.Option(min=1, help="Windows per batch. Each torchrun process has its own batch.")] = 32,
    licence: Annotated[
        str | None,
        typer.Option(
            help="SPDX name of the weights' licence. [default: that of the --from model, otherwise NOASSERTION]"
        ),
    ] = None,
    log: Annotated[Path | None, Log] = None,
    device: Annotated[str, Device] = "auto",
    seed: Annotated[int, Seed] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the network.")] = 1,
    half: Annotated[bool, typer.Option(help="Multiply in bfloat16: faster if the CPU or GPU supports it.")] = True,
) -> None:
    """Train a model on a pool of mixtures and on pictures, with the teachers' scores as targets.

    With a teacher's wheel, the model's stem copies the teacher's first layers. Repeat the command to resume.
    """
    import torch

    from perceiverd.model.card import load_card
    from perceiverd.training.distill import task
    from perceiverd.training.fitting.loop import StoppedError

    if (minutes is None) == (batches is None):
        raise typer.BadParameter("give one of --minutes and --batches", param_hint="'--minutes'")
    torch.set_num_threads(threads)
    settings = task.DistillTask(
        geometry=read_geometry(geometry),
        pools=tuple(pool),
        pictures=pictures,
        views=views,
        audio_wheel=teacher_sound,
        video_wheel=teacher_sight,
        frozen_audio=frozen_sound,
        mix=task.parse_mix(mix, matched),
        start=load_card(start) if start else None,
        rate=rate,
        batch=batch,
        seed=seed,
        half=half,
        batches=batches,
        minutes=minutes,
        state=state,
        out=out,
        licence=licence,
        logs=log,
        device=device,
    )
    try:
        task.run(settings)
    except StoppedError as error:
        raise _stopped(error) from None


def hush(
    model: Annotated[Path, Model],
    pool: Annotated[list[Path], Pools],
    out: Annotated[Path, Out],
    pictures: Annotated[Path | None, Images] = None,
    views: Annotated[Path | None, Views] = None,
    hours: Annotated[float, typer.Option(min=0.01, help=Hours)] = 5.0,
    count: Annotated[int, typer.Option(min=1, help="Windows of the training material.")] = 19_200,
    float16: Annotated[bool, typer.Option("--float16", help="Store the weights in float16: half the file.")] = False,
    seed: Annotated[int, Seed] = 1,
) -> None:
    """Fit a model's last layer again, so that no label scores high in hours without events.

    The old scores of the training material are kept. Run `calibrate` afterwards.
    """
    import torch

    from perceiverd.model.card import load_card
    from perceiverd.model.checkpoint import load_network
    from perceiverd.training.data import ambient
    from perceiverd.training.distill import quiet_head
    from perceiverd.training.distill.batches import Batches, Mix
    from perceiverd.training.distill.output import claimed, write
    from perceiverd.training.distill.task import audio_of, video_of
    from perceiverd.training.evaluation.scores import check

    card = load_card(model)
    check(card)
    if card.geometry.video and not (views or pictures):
        raise ConfigError(f"{card.name}: takes video; give --views or --pictures, so that video keeps its scores")
    audio = audio_of(card.geometry, pool)
    video = video_of(card.geometry, pictures, views, seed)
    stored = frozenset({"video"} if views else ())
    if quiet_head.has_tokens(load_network(card), card.geometry, audio):
        stored |= {"audio"}
    batches = Batches(card.geometry, audio, video, size=quiet_head.BATCH, seed=seed, mix=Mix(), convolved=stored)
    scenes = ambient.read_scenes(pictures, ambient.QUIET_HEAD_SEED)
    streams = ambient.streams(card.geometry, scenes, ambient.QUIET_HEAD_SEED, hours, ambient.FIT_S)
    with claimed(out, card):
        network = quiet_head.refit(card, batches, max(1, count // quiet_head.BATCH), streams)
        dtype = torch.float16 if float16 else torch.float32
        write(out, network, card.geometry, card.labels, card.licence, dtype)


def rehearsal(
    model: Annotated[Path, Model],
    pool: Annotated[Path, Pool],
    count: Annotated[int, typer.Option(min=1, help="Windows.")] = 4_096,
    seed: Annotated[int, Seed] = 1,
) -> None:
    """Save vectors of training windows beside a model, as rehearsal.safetensors.

    `fit` uses them as examples that have none of the new labels.
    """
    from perceiverd.model.card import load_card
    from perceiverd.training.distill import rehearsal

    card = load_card(model)
    size = rehearsal.build(card, pool, count, seed)
    print(f"{card.folder / rehearsal.REHEARSAL_FILE}: {count} vectors, {size / 1e6:.1f} MB")


def fit(
    out: Annotated[Path, Out],
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Clips: columns file,start_s,end_s,labels, or a list of AudioSet's."),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Instead of a manifest: what was marked as right, wrong or missed, and taught sounds."
        ),
    ] = None,
    recent: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="With --corrections: folder of recent sound, as background. Can be repeated. [default: the service's]",
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --corrections: history to say what would have changed. [default: the service's]"
        ),
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0.01, help="With --corrections: hours of background, at most. [default: 2]")
    ] = None,
    manifest_format: Annotated[
        Literal["auto", "perceiverd", "audioset"], typer.Option(help="Format of the CSV.")
    ] = "auto",
    media: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For AudioSet's lists: folder of the clips, ID.ext or ID_START.ext."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME|FOLDER", help="Model to start from. [default: the bundled model]"),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings file (TOML). With a [geometry] it makes a new model."),
    ] = None,
    train: Annotated[
        Literal["head", "all"], typer.Option(help="Train the manifest's labels only, or the whole network.")
    ] = "head",
    rehearse: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Clips that have none of your new sounds. Can be repeated."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Clips to measure the model on. They are never trained on.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="How often each clip is used.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Instead of epochs: time limit, over all resumptions.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips per step, over all processes.")] = None,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None, typer.Option(help="Number format of products.")
    ] = None,
    skip: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of clips that may be missing or unreadable. [default: 0.1]"),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder in which the fit saves its state. [default: OUT.fit]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a fit that was stopped.")] = False,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Decoded clips. [default: ~/.cache/perceiverd/clips]")
    ] = None,
    log: Annotated[Path | None, Log] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX name of the weights' licence. [default: that of the --from model]")
    ] = None,
    device: Annotated[str, Device] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the network; 0: torch decides.")] = 0,
    seed: Annotated[int, Seed] = 1,
    recipe: Annotated[str | None, renamed("--settings")] = None,
) -> None:
    """Fit a model to your own labelled clips, or to corrections.

    Adds new labels to a model, trains all of it, or makes a new one. Runs alone or in several torchrun processes.
    """
    if corrections is not None:
        from perceiverd.training.cli import corrections as corrected

        others = {
            "--manifest": manifest,
            "--media": media,
            "--settings": settings,
            "--train": train != "head",
            "--held-out": held_out,
            "--epochs": epochs,
            "--minutes": minutes,
            "--batch": batch,
            "--precision": precision,
            "--skip": skip,
            "--state": state,
            "--resume": resume,
            "--cache": cache,
            "--log": log,
        }
        corrected.refuse(name for name, value in others.items() if value)
        corrected.run(corrections, out, start, recent, rehearse, history, hours, threads)
        return
    if manifest is None:
        raise typer.BadParameter("give one of --manifest and --corrections", param_hint="'--manifest'")
    import torch

    from perceiverd.evaluation.manifest import files_in, read
    from perceiverd.model.engine import DEVICE_PATTERN
    from perceiverd.training.finetune import job
    from perceiverd.training.finetune.settings import FinetuneSettings, load, overridden
    from perceiverd.training.finetune.task import FitTask, default_cache, known_labels
    from perceiverd.training.fitting.distributed import is_leader, own_device
    from perceiverd.training.fitting.loop import StoppedError

    if not DEVICE_PATTERN.fullmatch(device):
        raise typer.BadParameter(f"{device!r} is not auto, cpu, cuda or cuda:N", param_hint="'--device'")
    where = own_device(device)
    if threads:
        torch.set_num_threads(threads)
    found = load(settings) if settings else FinetuneSettings()
    found = overridden(found, epochs=epochs, batch=batch, precision=precision, skip=skip)
    origin = job.starting_model(start, found, settings)
    known = known_labels(origin)
    read_csv = partial(read, manifest_format=manifest_format, media=media, skip=found.clips.skip, logs=is_leader())
    clips = read_csv(manifest, known)
    task = FitTask(
        clips,
        out,
        origin,
        found,
        train=train,
        unlabelled=tuple(row for folder in rehearse or () for row in files_in(folder)),
        held_out=read_csv(held_out, (*known, *clips.new)) if held_out else None,
        cache=cache or default_cache(),
        state=state,
        resume=resume,
        minutes=minutes,
        logs=log,
        licence=licence,
        seed=seed,
        device=where,
    )
    try:
        quality = job.run(task)
    except StoppedError as error:
        raise _stopped(error) from None
    if quality:
        print(quality)


def _stopped(error: Exception) -> typer.Exit:
    print(f"perceiverd: {error}", file=sys.stderr)
    return typer.Exit(INTERRUPTED)
