"""The command line. Every command imports what it needs when it is called, so that `--help` answers at once.

It turns options into arguments, and PerceiverdError into one line and an exit status; it does nothing else.
"""

import errno
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from perceiverd import __version__
from perceiverd.errors import ConfigError, PerceiverdError

FAILED, CONFIG, BROKEN_PIPE = 1, 78, 141
"""Exit statuses: a fault; a configuration or model that can't be used (EX_CONFIG, after which systemd does not start
again); what a shell reports for SIGPIPE. Wrong usage is 2 and Ctrl-C 130, by typer."""

# Plain help: it is read in logs too, and rich alone takes longer to import than all the rest.
app = typer.Typer(
    help="Cameras and microphones in, AudioSet labels out, over ZeroMQ.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="Models: what there is, and what can be had.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models, name="models")

ModelName = typer.Option(help="A model that comes with perceiverd, or a model's folder.", metavar="NAME|FOLDER")
DeviceName = typer.Option(help="auto, cpu, cuda or cuda:N.", metavar="DEVICE")


def main() -> None:
    """Run the command that the arguments name, and exit."""
    # Torch's threads wait for each other in a loop by default. On a machine that has other work, whoever is waited for
    # may not be running at all: with both of two cores busy, a window took 30 times as long as with threads that sleep.
    # It must be said before torch is loaded; whoever knows better has set it already.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(prog_name="perceiverd")
    except PerceiverdError as error:
        tell(error)
        sys.exit(FAILED)


def tell(error: PerceiverdError) -> None:
    print(f"perceiverd: {error}", file=sys.stderr)


@contextmanager
def output() -> Iterator[None]:
    """End in silence when whoever reads our output has seen enough (`| head`), in a line when the disk is full."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        # What is still held for standard output must have somewhere to go at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            raise typer.Exit(BROKEN_PIPE) from error
        raise PerceiverdError(f"the output cannot be written: {error.strerror}") from error


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"perceiverd {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="See configs/perceiverd.toml.", metavar="FILE")],
) -> None:
    """Watch streams and publish their labels, until SIGTERM or Ctrl-C."""
    from perceiverd import daemon

    try:
        status = daemon.run(config)
    except ConfigError as error:
        tell(error)
        status = CONFIG
    raise typer.Exit(status)


@app.command()
@output()
def watch(
    endpoint: Annotated[
        str, typer.Argument(help="Where a daemon publishes: ipc://PATH or tcp://HOST:PORT.", metavar="ENDPOINT")
    ],
    stream: Annotated[str | None, typer.Option(help="This stream alone.", metavar="NAME")] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels a stream, best first.", metavar="K")] = 5,
) -> None:
    """Show the labels of a daemon as they come, until Ctrl-C."""
    from perceiverd import watch

    raise typer.Exit(watch.watch(endpoint, stream, top))


@app.command()
@output()
def tag(
    files: Annotated[list[str], typer.Argument(help="Sound and video files, or URLs.", metavar="FILE")],
    form: Annotated[Literal["text", "jsonl"], typer.Option("--format", help="For people or for programs.")] = "text",
    top: Annotated[int, typer.Option(min=1, help="Labels a line, best first.", metavar="K")] = 5,
    hop: Annotated[
        float | None,
        typer.Option(help="Seconds from one window to the next; by default they follow each other.", metavar="S"),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="One line a file: the mean over its windows.")] = False,
    model: Annotated[str | None, ModelName] = None,
    device: Annotated[str, DeviceName] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Windows that go through the network together.", metavar="N")] = 16,
    into: Annotated[
        Path | None, typer.Option("--output", help="Write here, not to standard output.", metavar="FILE")
    ] = None,
) -> None:
    """Label what is heard and seen in files."""
    # A hop of under a millisecond would be thousands of windows a second, and surely is a slip.
    if hop is not None and not (math.isfinite(hop) and hop >= 0.001):
        raise typer.BadParameter(f"{hop:g} is not a number of seconds from 0.001 on", param_hint="'--hop'")
    from perceiverd import offline
    from perceiverd.card import DEFAULT, load_card
    from perceiverd.config import DEVICE
    from perceiverd.tagger import Tagger
    from perceiverd.writers import FORMATS

    if not DEVICE.fullmatch(device):
        raise typer.BadParameter(f"{device!r} is not auto, cpu, cuda or cuda:N", param_hint="'--device'")
    logging.basicConfig(format="perceiverd: %(message)s", level=logging.WARNING)
    card = load_card(model or DEFAULT)
    hop_ns = card.geometry.window_ns if hop is None else round(hop * 1e9)
    wish = offline.Wish(top=top, hop_ns=hop_ns, batch=batch, summary=summary)
    raise typer.Exit(offline.tag(files, Tagger(card, device), wish, FORMATS[form](), into))


@app.command()
@output()
def demo() -> None:
    """Play the bundled clip as a live stream and print its labels."""
    from perceiverd import demo

    raise typer.Exit(demo.demo())


@app.command()
@output()
def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Models' names or folders; `public`: the public checkpoint's sizes.", metavar="MODEL"),
    ] = None,
    device: Annotated[str, DeviceName] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Of the CPU; 0 leaves PyTorch's choice.", metavar="N")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each network has its turn.", metavar="N")] = 10,
    growth: Annotated[bool, typer.Option("--growth", help="Also more frames, and more streams.")] = False,
    into: Annotated[Path | None, typer.Option("--json", help="Write it all here too.", metavar="FILE")] = None,
) -> None:
    """Time models next to others that do the same work, where those are installed, and to what this machine can do."""
    from perceiverd import bench
    from perceiverd.card import DEFAULT

    reports: list[bench.Report] = []
    for model in models or [DEFAULT, bench.PUBLIC]:
        report = bench.run(model, device, threads, rounds, growth and model == bench.PUBLIC)
        print(("\n" if reports else "") + bench.table(report), flush=True)
        reports.append(report)
    if into:
        bench.write(reports, into)


# What follows `train` belongs to its own command line, which is loaded only when it is called.
@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Make a model: corpus, teachers, training, report. Needs the extra `train`."""
    try:
        import perceiverd.training.cli as training
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("perceiverd"):  # a fault of ours, not a missing extra
            raise
        raise PerceiverdError(f"training needs more: pip install 'perceiverd[train]' ({error})") from error
    try:
        training.app(context.args, prog_name="perceiverd train")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        if error.filename is None:
            raise
        raise PerceiverdError(f"{error.filename}: {error.strerror}; check the paths that were given") from error


@models.command("list")
@output()
def list_models() -> None:
    """The models' names and what they take, a line each."""
    from perceiverd import card

    for found in map(card.load_card, card.bundled() + card.imported()):
        geometry = found.geometry
        inputs = " and ".join(part.name for part in geometry.modalities)
        print(f"{found.name:20} {geometry.classes} labels, {inputs} of {geometry.window_ns / 1e9:g} s, {found.licence}")


@models.command()
@output()
def info(
    name: Annotated[str | None, typer.Argument(help="A model's name or folder.", metavar="NAME|FOLDER")] = None,
) -> None:
    """What a model is: its folder, what it takes, its weights."""
    from perceiverd import card

    found = card.load_card(name or card.DEFAULT)
    print(f"name      {found.name}")
    print(f"folder    {found.folder}")
    print(f"licence   {found.licence}")
    print(f"weights   sha256 {found.sha256}")
    print(f"labels    {len(found.labels)}")
    print(f"window    {found.geometry.window_ns / 1e9:g} s")
    for part in found.geometry.modalities:
        print(f"{part.name:9} {part.tokens} tokens of {part.width} channels, {'x'.join(map(str, part.grid))}")
    trunk = found.geometry.trunk
    print(f"network   {trunk.latents} latents of {trunk.width} channels, {trunk.cross_attends} cross-attends")
    print(f"scores    {'each label for itself' if found.scores == 'sigmoid' else 'one label of all'} ({found.scores})")


@models.command()
@output()
def verify(
    name: Annotated[str | None, typer.Argument(help="A model's name or folder.", metavar="NAME|FOLDER")] = None,
) -> None:
    """Read all of a model: sha256, names, shapes and values of its weights, labels."""
    from perceiverd import card
    from perceiverd.checkpoint import load_network

    found = card.load_card(name or card.DEFAULT)
    count = sum(tensor.numel() for tensor in load_network(found).state_dict().values())
    print(f"{found.folder}: whole; {count} numbers, {len(found.labels)} labels, sha256 {found.sha256}")


@models.command("import")
@output()
def import_model(
    source: Annotated[
        str, typer.Argument(help="hf:deepmind/multimodal-perceiver, or a folder with its files.", metavar="SOURCE")
    ],
    into: Annotated[
        Path | None, typer.Option(help="Put the model here, not among your own models.", metavar="FOLDER")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX expression for weights of unknown licence.", metavar="SPDX")
    ] = None,
) -> None:
    """Convert the public multimodal Perceiver, whose labels are 700 human actions."""
    from perceiverd import hub

    card = hub.install(source, into, licence)
    print(f"{card.name}: {len(card.labels)} labels, {card.licence}, in {card.folder}")
