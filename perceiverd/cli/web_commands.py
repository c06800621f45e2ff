"""The declarations of `perceiverd web`. Each one imports its module when it runs."""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from perceiverd.cli.console import EXIT_CONFIG, SECRET_KEY, SERVER_KEY, report
from perceiverd.core.errors import ConfigError, PerceiverdError

web = typer.Typer(rich_markup_mode=None)


@web.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration file. Without it, show the service on this machine.", metavar="FILE"),
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Show this daemon instead of the configured ones: ENDPOINT, or NAME=ENDPOINT. Can be repeated.",
            metavar="ENDPOINT",
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(help="Serve at HOST:PORT or unix:PATH, instead of the configured place.", metavar="PLACE"),
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File that `perceiverd web password` has written.", metavar="FILE")
    ] = None,
    history: Annotated[Path | None, typer.Option(help="Folder of the history's database.", metavar="FOLDER")] = None,
    media: Annotated[
        Path | None, typer.Option(help="Folder with the snapshots of the daemons.", metavar="FOLDER")
    ] = None,
    corrections: Annotated[
        Path | None, typer.Option(help="Folder for corrections and their sounds.", metavar="FOLDER")
    ] = None,
    server_key: Annotated[Path | None, SERVER_KEY] = None,
    secret_key: Annotated[Path | None, SECRET_KEY] = None,
) -> None:
    """Serve a web page with streams, events and statistics.

    It runs until SIGTERM or Ctrl-C. Needs the extra `web`.
    """
    if context.invoked_subcommand:
        return
    try:
        from perceiverd.web import service, settings
    except ModuleNotFoundError as error:
        report(ConfigError(f"the page needs an extra: pip install 'perceiverd[web]' ({error})"))
        raise typer.Exit(EXIT_CONFIG) from error  # a restart would not help

    options = settings.WebOptions(
        endpoints=endpoint or (),
        server_key=server_key,
        secret_key=secret_key,
        listen=listen,
        password_file=password_file,
        history=history,
        media=media,
        corrections=corrections,
    )
    try:
        chosen = settings.load(config) if config else settings.WebConfig()
        status = service.run(settings.with_options(chosen, options))
    except ConfigError as error:
        report(error)
        status = EXIT_CONFIG
    raise typer.Exit(status)


@web.command()
def password(
    into: Annotated[Path, typer.Argument(help="The file, which is replaced if it exists.", metavar="FILE")],
) -> None:
    """Ask for a password, or read a line from standard input, and write its hash into a file."""
    from perceiverd.web.passwords import PasswordHash

    if sys.stdin.isatty():
        given = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != given:
            raise PerceiverdError("the two passwords differ; nothing was written")
    else:
        given = sys.stdin.readline().rstrip("\r\n")
    PasswordHash.of(given).write(into)
    print(f"{into}: written; set server.password_file to it, and restart the page")
