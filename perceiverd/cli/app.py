"""The declarations of the commands: names, options, help. What a command does is in the module that it imports.

Each command imports that module when it runs, so that `--help` answers at once. The commands in groups
(`models list`) are declared in `groups`.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from perceiverd import __version__
from perceiverd.cli import eval_command, groups, history_commands, tag_command, web_commands
from perceiverd.cli.console import (
    CONFIG_HELP,
    DEVICE,
    ENDPOINT,
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    SECRET_KEY,
    SERVER_KEY,
    output,
    prepare_streams,
    report,
)
from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.paths import SERVICE_ENDPOINT

# Plain help: log files get it too, and rich alone takes longer to import than everything else here.
app = typer.Typer(
    help="Cameras and microphones in, AudioSet labels out, over ZeroMQ.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(groups.models, name="models")
app.add_typer(groups.bridges, name="bridge")
app.add_typer(groups.configs, name="config")
app.add_typer(groups.keys, name="keys")
app.add_typer(history_commands.history, name="history")
app.add_typer(web_commands.web, name="web")


def main() -> None:
    """Run the command that the arguments name, and exit."""
    # By default torch's threads spin while they wait for each other. If other programs keep the cores busy, the thread
    # that is waited for may not run at all: with both of two cores busy, a window took 30 times as long as with threads
    # that sleep. The variable must be set before torch is loaded; a value from the user's environment wins.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # numpy's OpenBLAS starts a thread for each core and lets it spin for up to 40 ms, here and in every worker process.
    # It must be set before numpy is loaded; 2 to the power of this many cycles, 4 is the least.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    prepare_streams()
    try:
        with output():  # here too: --version and --help print before a command runs
            app(prog_name="perceiverd")
    except PerceiverdError as error:
        report(error)
        sys.exit(EXIT_FAILED)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except KeyboardInterrupt:  # before typer handles it
        sys.exit(EXIT_INTERRUPTED)


def print_version(requested: bool) -> None:
    if requested:
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
    config: Annotated[Path, typer.Option(help=CONFIG_HELP, metavar="FILE")],
    endpoint: Annotated[
        str | None,
        typer.Option(help="Publish at this endpoint instead of the configured one.", metavar="ENDPOINT"),
    ] = None,
) -> None:
    """Publish the labels of the configured streams. SIGTERM or Ctrl-C ends it."""
    from perceiverd.daemon import daemon

    try:
        status = daemon.run(config, endpoint)
    except ConfigError as error:
        report(error)
        status = EXIT_CONFIG
    raise typer.Exit(status)


@app.command()
@output()
def devices(
    attempt: Annotated[
        str | None,
        typer.Option(
            "--try",
            help="Open this device for 3 s and describe its data. Give a name from the list, or camera:N.",
            metavar="NAME",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List cameras and microphones with their levels. The exit status is 1 if no device can be used."""
    from perceiverd.cli import devices

    raise typer.Exit(devices.try_out(attempt, json=json) if attempt is not None else devices.devices(json=json))


@app.command()
@output()
def watch(
    endpoint: Annotated[str, ENDPOINT] = SERVICE_ENDPOINT,
    stream: Annotated[str | None, typer.Option(help="Show only this stream.", metavar="NAME")] = None,
    top: Annotated[int, typer.Option(min=1, help="Show the K best labels of each stream.", metavar="K")] = 5,
    scores: Annotated[bool, typer.Option("--scores", help="Print a line for each window too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print each message as one line of JSON.")] = False,
    server_key: Annotated[Path | None, SERVER_KEY] = None,
    secret_key: Annotated[Path | None, SECRET_KEY] = None,
) -> None:
    """Show the streams of a daemon until Ctrl-C. Without a terminal, print a line for each change."""
    from perceiverd.cli import watch
    from perceiverd.wire.keys import read_curve

    choice = watch.WatchOptions(stream, top, scores, json)
    raise typer.Exit(watch.watch(endpoint, choice, read_curve(server_key, secret_key)))


@app.command()
@output()
def explain(
    endpoint: Annotated[str, ENDPOINT] = SERVICE_ENDPOINT,
    *,
    stream: Annotated[str, typer.Option(help="The stream.", metavar="NAME")],
    label: Annotated[str, typer.Option(help="The label, by its name or mid.", metavar="NAME|MID")],
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each window.")] = False,
    server_key: Annotated[Path | None, SERVER_KEY] = None,
    secret_key: Annotated[Path | None, SECRET_KEY] = None,
) -> None:
    """Explain for each window why a label has an event or none. Ctrl-C ends it."""
    from perceiverd.cli import explain
    from perceiverd.wire.keys import read_curve

    curve = read_curve(server_key, secret_key)
    raise typer.Exit(explain.explain(endpoint, stream, label, json=json, curve=curve))


app.command()(output()(tag_command.tag))
app.command("eval")(output()(eval_command.evaluate))


@app.command()
@output()
def doctor(
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration file. Default: /etc/perceiverd/perceiverd.toml, if it exists.", metavar="FILE"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each finding.")] = False,
) -> None:
    """Check this machine and advise on each fault.

    It checks devices, permissions, GPU, model, sockets, clock and each stream of the configuration.
    """
    from perceiverd.doctor import run

    raise typer.Exit(run(config, json=json))


@app.command()
@output()
def demo(
    web: Annotated[
        bool, typer.Option("--web", help="Play it in a loop, and serve the web page with its history until Ctrl-C.")
    ] = False,
) -> None:
    """Play the bundled clip as a live stream and print its labels."""
    from perceiverd.cli import demo, demo_page

    raise typer.Exit(demo_page.demo_page() if web else demo.demo())


@app.command()
@output()
def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names or folders of models; `public` for the sizes of the public checkpoint.", metavar="MODEL"
        ),
    ] = None,
    device: Annotated[str, DEVICE] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 means one for each core.", metavar="N")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="How many times each network is timed.", metavar="N")] = 10,
    growth: Annotated[
        bool, typer.Option("--growth", help="Also time `public` with more frames and with more streams.")
    ] = False,
    into: Annotated[
        Path | None, typer.Option("--json", help="Also write all numbers to this file.", metavar="FILE")
    ] = None,
    streams: Annotated[
        str | None,
        typer.Option(
            help="Instead, replay this many streams through a daemon. max: find how many this machine carries before "
            "it drops a window, in 20 minutes at most.",
            metavar="N|max",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=5, help="With --streams: how long. Default: 60; with max, 20 for each step.", metavar="S"),
    ] = None,
    hop: Annotated[
        float, typer.Option(min=0.05, help="With --streams: time from one window to the next.", metavar="S")
    ] = 0.5,
    still: Annotated[bool, typer.Option("--still", help="With --streams: all pictures count as unchanged.")] = False,
) -> None:
    """Measure how fast models run on this machine.

    The report compares them with other implementations that are installed, and with the machine's limits.
    """
    from perceiverd.cli import bench

    if streams:
        if growth:
            raise typer.BadParameter("cannot be combined with --streams", param_hint="'--growth'")
        count = bench.stream_count(streams)
        bench.streams(models, device, threads, count, seconds, hop_s=hop, still=still, file=into)
    else:
        bench.networks(models, device, threads, rounds, growth=growth, file=into)


@app.command()
@output()
def teach(
    endpoint: Annotated[str, ENDPOINT] = SERVICE_ENDPOINT,
    *,
    stream: Annotated[str, typer.Option(help="The stream in which it sounds.", metavar="NAME")],
    label: Annotated[
        str, typer.Option(help="What it is: a label of AudioSet, or a name of your own.", metavar="NAME|MID")
    ],
    times: Annotated[int, typer.Option(min=1, max=1000, help="How many examples to mark.", metavar="N")] = 5,
    begins: Annotated[
        list[str] | None,
        typer.Option("--from", help="Instead of a key: when an example began. Can be repeated.", metavar="TIME"),
    ] = None,
    ends: Annotated[
        list[str] | None, typer.Option("--to", help="When it ended; one for each --from.", metavar="TIME")
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the examples. Default: perceiverd/corrections in the user's data folder.", metavar="DIR"
        ),
    ] = None,
    server_key: Annotated[Path | None, SERVER_KEY] = None,
    secret_key: Annotated[Path | None, SECRET_KEY] = None,
) -> None:
    """Teach a sound: hold a key while it sounds. Then `train fit --corrections` makes a model that knows it."""
    from perceiverd.cli import teach
    from perceiverd.wire.keys import read_curve

    wanted = teach.Teaching(stream, label, corrections or teach.default_folder(), times, begins or (), ends or ())
    raise typer.Exit(teach.teach(endpoint, wanted, read_curve(server_key, secret_key)))


# The arguments after `train` belong to a command line of its own, which is loaded only when it is called.
@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Make a model: data, teachers, training, report. Needs the extra `train`."""
    from perceiverd.cli import train

    train.run(context.args)


@app.command()
@output()
def schema(
    files: Annotated[
        bool, typer.Option("--files", help="Print the schema of the records of `tag --format jsonl` instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of the messages."""
    from perceiverd.wire import schema

    print(schema.text_of(schema.records_schema() if files else schema.json_schema()), end="")
