"""The steps of `perceiverd train` that teach: distil, hush, rehearsal, fit. The work is done elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from perceiverd.core.errors import ConfigError
from perceiverd.training.cli.options import (
    INTERRUPTED,
    Given,
    Model,
    Out,
    Pools,
    Seed,
    SightWheel,
    SoundWheel,
    Table,
    read_geometry,
)
from perceiverd.training.teachers.efficientnet import MAPPING


def distil(
    geometry: Annotated[Path, typer.Option(metavar="FILE", help="What the model sees and how it is built.")],
    pool: Annotated[list[Path], Pools],
    out: Annotated[Path, Out],
    state: Annotated[Path, typer.Option(metavar="DIR", help="Where the fit keeps itself, to go on after a stop.")],
    minutes: Annotated[float | None, typer.Option(min=0.01, help="The whole budget, over all resumptions.")] = None,
    batches: Annotated[
        int | None, typer.Option(min=1, help="In place of minutes: batches of all processes together.")
    ] = None,
    pictures: Annotated[Path | None, Given] = None,
    views: Annotated[Path | None, typer.Option(metavar="DIR", help="In place of pictures: what `views` made.")] = None,
    teacher_sound: Annotated[Path | None, SoundWheel] = None,
    teacher_sight: Annotated[Path | None, SightWheel] = None,
    frozen_sound: Annotated[int, typer.Option(min=0, help="Adopted layers for sound that don't learn.")] = 6,
    mapping: Annotated[Path, Table] = MAPPING,
    mix: Annotated[
        str, typer.Option(metavar="A,B,V", help="Shares of sound alone, both, pictures alone.")
    ] = "0.5,0.2,0.3",
    matched: Annotated[
        float, typer.Option(min=0, max=1, help="Of windows with both: how many have a picture of what is heard.")
    ] = 0.6,
    start: Annotated[
        str | None, typer.Option("--from", metavar="NAME|FOLDER", help="Go on with a model of the same geometry.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1e-9, help="Peak learning rate.")] = 1e-3,
    batch: Annotated[
        int, typer.Option(min=1, help="Windows of a batch; under torchrun each process has its own.")
    ] = 32,
    licence: Annotated[
        str | None, typer.Option(help="Of the weights (SPDX); that of the model gone on with, else NOASSERTION.")
    ] = None,
    log: Annotated[Path | None, typer.Option(metavar="DIR", help="Write curves for TensorBoard.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", metavar="DEVICE")] = "auto",
    seed: Annotated[int, Seed] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Of the processor, for the network.")] = 1,
    half: Annotated[bool, typer.Option(help="bfloat16 products: faster where the processor has them.")] = True,
) -> None:
    """Teach a new model from taught mixtures and pictures, or go on with one.

    Stems adopt a teacher's first layers where its wheel is given. What was begun goes on with the same command.
    """
    import torch

    from perceiverd.core.labels import ontology
    from perceiverd.model.card import load_card
    from perceiverd.training.distill import distill as distilling
    from perceiverd.training.distill.output import claimed, write
    from perceiverd.training.distill.task import Lesson, mix_of
    from perceiverd.training.fitting import loop
    from perceiverd.training.fitting.distributed import is_leader, own_device, process_count
    from perceiverd.training.fitting.settings import FitSettings

    if (minutes is None) == (batches is None):
        raise typer.BadParameter("give one of --minutes and --batches", param_hint="'--minutes'")
    origin = load_card(start) if start else None
    lesson = Lesson(
        geometry=read_geometry(geometry),
        pools=tuple(pool),
        pictures=pictures,
        views=views,
        teacher_sound=teacher_sound,
        teacher_sight=teacher_sight,
        frozen_sound=frozen_sound,
        mapping=mapping,
        mix=mix_of(mix, matched),
        start=origin,
        rate=rate,
        batch=batch,
        seed=seed,
        half=half,
    )
    lesson.check()
    place = loop.LoopState(
        state / distilling.STATE_FILE,
        lesson.fingerprint,
        of="geometry, material, settings or number of processes",
        again="the same command",
    )
    made = state / "model.sha256"  # of the model that this fit wrote last, which it may write again
    where = own_device(device)
    torch.set_num_threads(threads)
    with claimed(out, origin, made):
        try:
            network = distilling.distil(
                lesson.student(),
                lesson.batches(),
                FitSettings(rate=rate, warmup=distilling.WARMUP, batch=batch),
                loop.Budget(-(-(batches or 0) // process_count()), minutes),
                place,
                half=half,
                device=where,
                logs=log,
            )
        except loop.StoppedError as error:
            print(f"perceiverd: {error}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        if is_leader():
            terms = licence or (origin.licence if origin else "NOASSERTION")
            made.write_text(write(out, network, lesson.geometry, ontology().labels, terms))


def hush(
    model: Annotated[Path, Model],
    pool: Annotated[list[Path], Pools],
    out: Annotated[Path, Out],
    pictures: Annotated[Path | None, Given] = None,
    views: Annotated[Path | None, typer.Option(metavar="DIR", help="What `views` made, for a model that sees.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, help="Of quiet.")] = 5.0,
    count: Annotated[int, typer.Option(min=1, help="Windows of the training material.")] = 19_200,
    seed: Annotated[int, Seed] = 1,
) -> None:
    """Fit a model's last layer anew, so that it names nothing in hours of silence, hum, hiss and clicks that are made.

    Calibrate it afterwards.
    """
    from perceiverd.model.card import load_card
    from perceiverd.training.data import ambient
    from perceiverd.training.distill import quiet_head as hushing
    from perceiverd.training.distill.batches import Batches, Mix
    from perceiverd.training.distill.output import claimed, write
    from perceiverd.training.distill.task import pictures_for, sounds_for
    from perceiverd.training.evaluation.scores import check

    card = load_card(model)
    check(card)
    if card.geometry.video and not (views or pictures):
        raise ConfigError(f"{card.name}: sees; give --views or --pictures, which are to keep their scores")
    sounds = sounds_for(card.geometry, pool)
    seen = pictures_for(card.geometry, pictures, views, seed)
    batches = Batches(card.geometry, sounds, seen, size=hushing.BATCH, seed=seed, mix=Mix())
    scenes = ambient.read_scenes(pictures, ambient.HUSH_SEED)
    streams = ambient.streams(card.geometry, scenes, ambient.HUSH_SEED, hours, ambient.FIT_S)
    with claimed(out, card):
        network = hushing.hush(card, batches, max(1, count // hushing.BATCH), streams)
        write(out, network, card.geometry, card.labels, card.licence)


def rehearsal(
    model: Annotated[Path, Model],
    pool: Annotated[Path, Given],
    count: Annotated[int, typer.Option(min=1, help="Windows that are remembered.")] = 4_096,
    seed: Annotated[int, Seed] = 1,
) -> None:
    """Keep beside a model what it makes of what it learnt from.

    `fit` learns new labels against that.
    """
    from perceiverd.model.card import load_card
    from perceiverd.training.distill import rehearsal

    card = load_card(model)
    size = rehearsal.build(card, pool, count, seed)
    print(f"{card.folder / rehearsal.BANK_FILE}: {count} vectors, {size / 1e6:.1f} MB")


def fit(
    manifest: Annotated[Path, typer.Option(metavar="CSV", help="file,start_s,end_s,labels; or a list of AudioSet's.")],
    out: Annotated[Path, Out],
    manifest_format: Annotated[Literal["auto", "perceiverd", "audioset"], typer.Option()] = "auto",
    media: Annotated[Path | None, typer.Option(metavar="DIR", help="AudioSet's clips: ID.ext or ID_START.ext.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="NAME|FOLDER", help="The model to start from; the bundled one.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="All settings, and for a new model its geometry.")
    ] = None,
    train: Annotated[
        Literal["head", "all"], typer.Option(help="The labels of the manifest alone, or the whole network.")
    ] = "head",
    rehearse: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Clips with none of your new sounds. More than once for more."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Clips to measure the model on; never learnt from.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="How often each clip is seen.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="In place of epochs: the whole budget, over all resumptions.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips of a step, over all processes.")] = None,
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"] | None, typer.Option()] = None,
    skip: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of clips that may be missing or unreadable; 0.1.")
    ] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the fit keeps itself; OUT.fit.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the fit that was stopped.")] = False,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where decoded clips are kept; ~/.cache/perceiverd/clips.")
    ] = None,
    log: Annotated[Path | None, typer.Option(metavar="DIR", help="Write curves for TensorBoard.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the new weights (SPDX); that of the model it starts from.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", metavar="DEVICE")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Of the processor, for the network; 0: torch's choice.")] = 0,
    seed: Annotated[int, Seed] = 1,
) -> None:
    """Fit a model to your own labelled clips.

    New labels on a model that there is, all of it, or a new one. Alone or, under torchrun, in company.
    """
    from perceiverd.pipeline.device import DEVICE
    from perceiverd.training.finetune import job
    from perceiverd.training.fitting.loop import StoppedError

    if not DEVICE.fullmatch(device):
        raise typer.BadParameter(f"{device!r} is not auto, cpu, cuda or cuda:N", param_hint="'--device'")
    wish = job.Wish(
        clips=manifest,
        out=out,
        form=manifest_format,
        media=media,
        start=start,
        recipe=recipe,
        train=train,
        rehearse=tuple(rehearse or ()),
        held_out=held_out,
        epochs=epochs,
        minutes=minutes,
        batch=batch,
        precision=precision,
        skip=skip,
        state=state,
        resume=resume,
        shelf=cache,
        logs=log,
        licence=licence,
        device=device,
        threads=threads,
        seed=seed,
    )
    try:
        told = job.run(wish)
    except StoppedError as error:
        print(f"perceiverd: {error}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if told:
        print(told)
