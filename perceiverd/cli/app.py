"""The command line. Every command imports what it needs when it is called, so that `--help` answers at once.

It turns options into arguments, and PerceiverdError into one line and an exit status; it does nothing else.
"""

import errno
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from perceiverd import __version__
from perceiverd.core.errors import ConfigError, ModelError, PerceiverdError
from perceiverd.core.paths import SERVICE_ENDPOINT

FAILED, CONFIG, INTERRUPTED, BROKEN_PIPE = 1, 78, 130, 141
"""Exit statuses: a fault; a configuration or model that can't be used (EX_CONFIG, after which systemd does not start
again); what a shell reports for SIGINT and for SIGPIPE. Wrong usage is 2, by typer. Ctrl-C is how `run` is meant to
end by hand: with 0."""

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
bridges = typer.Typer(help="Labels for others than subscribers.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bridges, name="bridge")
configs = typer.Typer(help="What a configuration says.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(configs, name="config")
keys = typer.Typer(help="Keys for encrypted labels.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys, name="keys")

ModelName = typer.Option(help="A bundled or imported model, or a model's folder.", metavar="NAME|FOLDER")
ServerKey = typer.Option(help="The daemon's public key, where it encrypts.", metavar="FILE")
SecretKey = typer.Option(help="One's own secret key, for a daemon that encrypts.", metavar="FILE")
Endpoint = typer.Argument(help="Where a daemon publishes: ipc://PATH or tcp://HOST:PORT.", metavar="ENDPOINT")
EXAMPLE = "All of it, with comments: configs/perceiverd.toml, installed in /usr/local/share/doc/perceiverd."
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
    except KeyboardInterrupt:  # where typer does not yet look after it
        sys.exit(INTERRUPTED)


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
    config: Annotated[Path, typer.Option(help=EXAMPLE, metavar="FILE")],
    endpoint: Annotated[
        str | None, typer.Option(help="Publish here, whatever the file says.", metavar="ENDPOINT")
    ] = None,
) -> None:
    """Watch streams and publish their labels, until SIGTERM or Ctrl-C."""
    from perceiverd.daemon import daemon

    try:
        status = daemon.run(config, endpoint)
    except ConfigError as error:
        tell(error)
        status = CONFIG
    raise typer.Exit(status)


@app.command()
@output()
def devices(
    attempt: Annotated[
        str | None,
        typer.Option(
            "--try", help="Open this one for 3 s and say what came: a name from the list, or camera:N.", metavar="NAME"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List cameras and microphones with their levels; status 1 where none can be used."""
    from perceiverd.cli import devices

    raise typer.Exit(devices.try_out(attempt, json=json) if attempt is not None else devices.devices(json=json))


@app.command()
@output()
def watch(
    endpoint: Annotated[str, Endpoint] = SERVICE_ENDPOINT,
    stream: Annotated[str | None, typer.Option(help="This stream alone.", metavar="NAME")] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels a stream, best first.", metavar="K")] = 5,
    scores: Annotated[bool, typer.Option("--scores", help="A line for every window, too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The messages as they came, a line each.")] = False,
    server_key: Annotated[Path | None, ServerKey] = None,
    secret_key: Annotated[Path | None, SecretKey] = None,
) -> None:
    """Show the streams of a daemon, or without a terminal what happens, until Ctrl-C."""
    from perceiverd.cli import watch
    from perceiverd.wire.client import curve_of

    raise typer.Exit(
        watch.watch(endpoint, watch.WatchOptions(stream, top, scores, json), curve_of(server_key, secret_key))
    )


@app.command()
@output()
def explain(
    endpoint: Annotated[str, Endpoint] = SERVICE_ENDPOINT,
    *,
    stream: Annotated[str, typer.Option(help="The stream.", metavar="NAME")],
    label: Annotated[str, typer.Option(help="The label, by its name or mid.", metavar="NAME|MID")],
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each window.")] = False,
    server_key: Annotated[Path | None, ServerKey] = None,
    secret_key: Annotated[Path | None, SecretKey] = None,
) -> None:
    """Say why a label has an event, or why it has none, window by window, until Ctrl-C."""
    from perceiverd.cli import explain
    from perceiverd.wire.client import curve_of

    curve = curve_of(server_key, secret_key)
    raise typer.Exit(explain.explain(endpoint, stream, label, json=json, curve=curve))


@app.command()
@output()
def tag(
    files: Annotated[list[str], typer.Argument(help="Sound and video files, or URLs.", metavar="FILE")],
    form: Annotated[Literal["text", "jsonl"], typer.Option("--format", help="For people or for programs.")] = "text",
    top: Annotated[int, typer.Option(min=1, help="Labels a line, best first.", metavar="K")] = 5,
    hop: Annotated[
        float | None,
        typer.Option(
            help="Seconds from one window to the next; by default they follow each other, for events they overlap.",
            metavar="S",
        ),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="One line a file: the mean over its windows.")] = False,
    events: Annotated[bool, typer.Option("--events", help="One line an event: when it began, and ended.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="Go by the thresholds of this configuration's [events].", metavar="FILE")
    ] = None,
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
    if events and summary:
        raise typer.BadParameter("a line for an event or one for a file, not both", param_hint="'--events'")
    if config and not events:
        raise typer.BadParameter("only --events needs a configuration", param_hint="'--config'")
    from perceiverd.config import DEVICE, Config, load
    from perceiverd.model.card import DEFAULT, load_card
    from perceiverd.offline import tag
    from perceiverd.offline.records import FORMATS
    from perceiverd.pipeline.rules import resolve
    from perceiverd.pipeline.tagger import Tagger

    if not DEVICE.fullmatch(device):
        raise typer.BadParameter(f"{device!r} is not auto, cpu, cuda or cuda:N", param_hint="'--device'")
    logging.basicConfig(format="perceiverd: %(message)s", level=logging.WARNING)
    card = load_card(model or DEFAULT)
    settings = load(config) if config else Config()
    try:
        rules = resolve(card.labels, card.calibration, settings.events) if events else None
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}") from error
    usual_ns = round(settings.window.hop_s * 1e9) if events else card.geometry.window_ns
    hop_ns = usual_ns if hop is None else round(hop * 1e9)
    wish = tag.TagOptions(top=top, hop_ns=hop_ns, batch=batch, summary=summary, rules=rules)
    raise typer.Exit(tag.tag(files, Tagger(card, device), wish, FORMATS[form](), into))


@app.command()
@output()
def doctor(
    config: Annotated[
        Path | None, typer.Option(help="By default /etc/perceiverd/perceiverd.toml, if it is there.", metavar="FILE")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each finding.")] = False,
) -> None:
    """Check devices, rights, GPU, model, sockets, clock and each stream, and say what to do about each fault."""
    from perceiverd.doctor import doctor

    raise typer.Exit(doctor.doctor(config, json=json))


@app.command()
@output()
def demo() -> None:
    """Play the bundled clip as a live stream and print its labels."""
    from perceiverd.cli import demo

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
    growth: Annotated[bool, typer.Option("--growth", help="Also more frames, and more streams, of `public`.")] = False,
    into: Annotated[Path | None, typer.Option("--json", help="Write it all here too.", metavar="FILE")] = None,
    streams: Annotated[
        int, typer.Option(min=0, max=1000, help="Instead: replay so many streams through a daemon.", metavar="N")
    ] = 0,
    seconds: Annotated[float, typer.Option(min=5, help="For how long, with --streams.", metavar="S")] = 60,
) -> None:
    """Time models next to others that do the same work, where those are installed, and to what this machine can do."""
    from perceiverd.model.card import DEFAULT

    if streams:
        if growth or into:
            hint = "'--growth'" if growth else "'--json'"
            raise typer.BadParameter("it is of networks alone; leave it out with --streams", param_hint=hint)
        from perceiverd.bench import load

        for model in models or [DEFAULT]:
            print(load.run(streams, seconds, model, device, threads), flush=True)
        return
    from perceiverd.bench import latency

    models = models or [DEFAULT, latency.PUBLIC]
    if growth and latency.PUBLIC not in models:
        raise typer.BadParameter(f"it is of the sizes of `{latency.PUBLIC}`: name that too", param_hint="'--growth'")
    if into:
        latency.check(into)  # not after minutes
    reports: list[latency.BenchReport] = []
    for model in models:
        report = latency.run(model, device, threads, rounds, growth and model == latency.PUBLIC)
        print(("\n" if reports else "") + latency.table(report), flush=True)
        reports.append(report)
    if into:
        latency.write(reports, into)


# What follows `train` belongs to its own command line, which is loaded only when it is called.
@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Make a model: corpus, teachers, training, report. Needs the extra `train`."""
    try:
        import perceiverd.training.cli.app as training
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


@bridges.command()
@output()
def mqtt(
    broker: Annotated[
        str,
        typer.Option(
            help="mqtt:// or mqtts:// with USER@HOST:PORT; the password is taken from PERCEIVERD_MQTT_PASSWORD.",
            metavar="URL",
        ),
    ],
    endpoint: Annotated[
        str, typer.Option(help="Where a daemon publishes: ipc://PATH or tcp://HOST:PORT.", metavar="ENDPOINT")
    ] = SERVICE_ENDPOINT,
    label: Annotated[
        list[str] | None,
        typer.Option(help="There from the start; others from their first event on. Repeat it.", metavar="NAME|MID"),
    ] = None,
    prefix: Annotated[str, typer.Option(help="What the topics begin with.", metavar="TOPIC")] = "perceiverd",
    discovery: Annotated[
        str, typer.Option(help="Home Assistant's discovery prefix; empty for no discovery.", metavar="TOPIC")
    ] = "homeassistant",
    ca: Annotated[
        Path | None,
        typer.Option(help="Certificate of the authority behind mqtts://; by default the system's.", metavar="FILE"),
    ] = None,
    server_key: Annotated[Path | None, ServerKey] = None,
    secret_key: Annotated[Path | None, SecretKey] = None,
) -> None:
    """Repeat labels at an MQTT broker, for Home Assistant and others. Needs the extra `mqtt`."""
    try:
        from perceiverd.mqtt import bridge
    except ModuleNotFoundError as error:
        if error.name != "paho":
            raise
        raise PerceiverdError(f"the bridge needs more: pip install 'perceiverd[mqtt]' ({error})") from error
    try:
        status = bridge.mqtt(
            bridge.BridgeOptions(endpoint, broker, label or (), prefix, discovery, ca, server_key, secret_key)
        )
    except ConfigError as error:
        tell(error)
        status = CONFIG
    raise typer.Exit(status)


@keys.command("new")
@output()
def new_key(
    name: Annotated[str, typer.Argument(help="Whose it is: letters, digits, _, . and -.", metavar="NAME")],
    folder: Annotated[Path, typer.Option(help="Where to put the files.", metavar="FOLDER")] = Path(),
) -> None:
    """Make a pair of keys, for a daemon or for one of its clients, and say what goes where."""
    from perceiverd.wire.keys import new

    public, secret = new(name, folder)
    print(f"public  {public}  for those it deals with")
    print(f"secret  {secret}  for itself alone")
    print()
    print("Is it the daemon's? Then its configuration says")
    print(f'  [publish]\n  secret_key = "{secret.resolve()}"\n  client_keys = "FOLDER"')
    print(f"and its clients are given {public.name}.")
    print(f"Is it a client's? Then {public.name} goes into that folder, and the client says")
    print(f"  perceiverd watch tcp://HOST:PORT --server-key DAEMON.key --secret-key {secret}")


@app.command()
@output()
def schema() -> None:
    """Print the JSON Schema of the messages."""
    from perceiverd.wire import schema

    print(schema.written(), end="")


@models.command("list")
@output()
def list_models() -> None:
    """The models' names and what they take, a line each; exit status 1 where one is broken."""
    from perceiverd.model import card

    broken = False
    for name in dict.fromkeys(card.bundled() + card.imported()):
        try:
            found = card.load_card(name)
        except ModelError as error:
            tell(error)
            broken = True
            continue
        geometry = found.geometry
        inputs = " and ".join(part.name for part in geometry.modalities)
        print(f"{name:20} {geometry.classes} labels, {inputs} of {geometry.window_ns / 1e9:g} s, {found.licence}")
    if broken:
        raise typer.Exit(FAILED)


@models.command()
@output()
def info(
    name: Annotated[str | None, typer.Argument(help="A model's name or folder.", metavar="NAME|FOLDER")] = None,
) -> None:
    """What a model is: its folder, what it takes, its weights."""
    from perceiverd.model import card

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
    from perceiverd.model import card
    from perceiverd.model.checkpoint import load_network

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
    from perceiverd.model import hub

    card = hub.install(source, into, licence)
    print(f"{card.name}: {len(card.labels)} labels, {card.licence}, in {card.folder}")


@configs.command()
@output()
def check(
    file: Annotated[Path, typer.Argument(help=EXAMPLE, metavar="FILE")],
) -> None:
    """Say whether the daemon would take this file; exit status 78 where it would not.

    Of what lies outside the file, such as keys and folders, there are notes; `perceiverd doctor` looks at all of that.
    """
    from perceiverd import config
    from perceiverd.daemon import reload, snapshots
    from perceiverd.model.card import load_card
    from perceiverd.wire import keys

    try:
        settings = config.load(file)
        model = load_card(settings.model.name)
        streams = reload.rules_of(settings, model)
    except PerceiverdError as error:
        tell(error if str(error).startswith(f"{file}: ") else ConfigError(f"{file}: {error}"))
        raise typer.Exit(CONFIG) from None
    many = "stream" if len(streams) == 1 else "streams"
    print(f"ok: {len(streams)} {many} ({', '.join(streams)}), model {model.name}")
    outside: list[Callable[[], object]] = [
        partial(config.secrets_of, settings, os.environ),
        partial(snapshots.check, settings, os.environ),
    ]
    if settings.publish.secret_key and settings.publish.client_keys:
        outside.append(partial(keys.read_pair, Path(settings.publish.secret_key)))
        outside.append(partial(keys.AllowList, Path(settings.publish.client_keys)))
    for look in outside:
        try:
            look()
        except ConfigError as error:
            # No fault of the file: the unit's user and environment are not the shell's.
            print(f"note: {error}")


@configs.command()
@output()
def show(
    file: Annotated[Path | None, typer.Argument(help="Without one, the defaults.", metavar="FILE")] = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="Every option; otherwise only what differs from its default.")
    ] = False,
) -> None:
    """Print a configuration as the daemon reads it, without passwords."""
    from perceiverd import config
    from perceiverd.config import toml

    try:
        settings = config.load(file) if file else config.Config()
    except ConfigError as error:
        tell(error)
        raise typer.Exit(CONFIG) from None
    print(toml.written(config.table(settings, defaults=effective)) or "# every option has its default\n", end="")
