"""The declarations of the commands of `perceiverd history`. Each one imports its module when it runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from perceiverd.cli.console import EXIT_CONFIG, SECRET_KEY, SERVER_KEY, output, report
from perceiverd.cli.times import TIME_HELP
from perceiverd.core.errors import ConfigError
from perceiverd.core.paths import SERVICE_HISTORY

history = typer.Typer(
    help="Store events and scores of daemons, and look at what is stored.", no_args_is_help=True, rich_markup_mode=None
)

DATABASE = typer.Option(help="The database.", metavar="FILE")
STREAM = typer.Option("--stream", help="Only this stream: MACHINE/STREAM, or STREAM. Can be repeated.", metavar="NAME")
LABEL = typer.Option(
    "--label", help="Only this label and those below it in the ontology. Can be repeated.", metavar="NAME|MID"
)
AFTER = typer.Option(help=f"Only events that began at this time or later: {TIME_HELP}.", metavar="TIME")
BEFORE = typer.Option(help="Only events that began before this time.", metavar="TIME")
LEAST = typer.Option(min=0, max=1, help="Only events whose highest score is at least this.", metavar="SCORE")
Database = Annotated[Path, DATABASE]
Streams = Annotated[list[str] | None, STREAM]
Labels = Annotated[list[str] | None, LABEL]
After = Annotated[str | None, AFTER]
Before = Annotated[str | None, BEFORE]
Least = Annotated[float, LEAST]


@history.command()
def run(
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration file. Without it, record the service on this machine.", metavar="FILE"),
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Record this daemon instead of the configured ones: ENDPOINT, or NAME=ENDPOINT. Can be repeated.",
            metavar="ENDPOINT",
        ),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Folder of the database, instead of the configured one.", metavar="FOLDER")
    ] = None,
    server_key: Annotated[Path | None, SERVER_KEY] = None,
    secret_key: Annotated[Path | None, SECRET_KEY] = None,
) -> None:
    """Store what daemons publish, until SIGTERM or Ctrl-C."""
    from perceiverd.history import service, settings

    try:
        chosen = settings.load(config) if config else settings.HistoryConfig()
        daemons = settings.daemons_of(chosen.daemons, endpoint or (), server_key, secret_key)
        status = service.run(settings.directory_of(chosen, directory), chosen.store, daemons, chosen.metrics)
    except ConfigError as error:
        report(error)
        status = EXIT_CONFIG
    raise typer.Exit(status)


@history.command("list")
@output()
def list_events(
    stream: Streams = None,
    label: Labels = None,
    after: After = None,
    before: Before = None,
    least_score: Least = 0.0,
    limit: Annotated[int, typer.Option(min=1, help="Print the newest N.", metavar="N")] = 50,
    form: Annotated[
        Literal["text", "jsonl", "csv"], typer.Option("--format", help="Text for people, or records.")
    ] = "text",
    database: Database = SERVICE_HISTORY,
) -> None:
    """List events, the newest first. As text, also list when nothing was recorded, and why."""
    from perceiverd.cli import history

    wanted = history.Wanted(stream or (), label or (), after, before, least_score)
    history.list_events(database, wanted, limit, form)


@history.command()
@output()
def show(
    number: Annotated[int, typer.Argument(help="The event's number, as `list` prints it.", metavar="EVENT")],
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    database: Database = SERVICE_HISTORY,
) -> None:
    """Show one event: why it began and ended, and the scores around it."""
    from perceiverd.cli import history

    history.show(database, number, "jsonl" if json else "text")


@history.command()
@output()
def stats(
    stream: Streams = None,
    label: Labels = None,
    after: After = None,
    before: Before = None,
    least_score: Least = 0.0,
    top: Annotated[int, typer.Option(min=1, help="Print the K most frequent labels and streams.", metavar="K")] = 15,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    database: Database = SERVICE_HISTORY,
) -> None:
    """Count events by label, stream, hour, weekday and day."""
    from perceiverd.cli import history

    history.stats(database, history.Wanted(stream or (), label or (), after, before, least_score), json, top)


@history.command()
@output()
def export(
    what: Annotated[
        Literal["events", "states"], typer.Argument(help="Events, or the states and gaps of the streams.")
    ] = "events",
    form: Annotated[Literal["jsonl", "csv"], typer.Option("--format", help="Lines of JSON, or CSV.")] = "jsonl",
    into: Annotated[
        Path | None, typer.Option("--output", help="Write to this file instead of standard output.", metavar="FILE")
    ] = None,
    stream: Streams = None,
    label: Labels = None,
    after: After = None,
    before: Before = None,
    least_score: Least = 0.0,
    database: Database = SERVICE_HISTORY,
) -> None:
    """Write all events, the oldest first, for other programs."""
    from perceiverd.cli import history

    wanted = history.Wanted(stream or (), label or (), after, before, least_score)
    history.export(database, wanted, what, form, into)


@history.command()
@output()
def backup(
    into: Annotated[Path, typer.Argument(help="The new file. It must not exist.", metavar="FILE")],
    database: Database = SERVICE_HISTORY,
) -> None:
    """Copy the database into a new file. The history may run meanwhile."""
    from perceiverd.cli import history

    history.backup(database, into)
