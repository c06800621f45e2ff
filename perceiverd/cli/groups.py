"""The declarations of the commands in groups: `models`, `bridge`, `config` and `keys`.

As in `app`, each command imports its module when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from perceiverd.cli.console import CONFIG_HELP, ENDPOINT_HELP, EXIT_CONFIG, SECRET_KEY, SERVER_KEY, output, report
from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.paths import SERVICE_ENDPOINT

MODEL_NAME = typer.Argument(help="Name or folder of a model. Default: the bundled one.", metavar="NAME|FOLDER")


def group(text: str) -> typer.Typer:
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)


models = group("List, describe, verify, import and export models.")
bridges = group("Forward labels to other systems (MQTT, Home Assistant).")
configs = group("Check, print and describe a configuration.")
keys = group("Make keys for encrypted labels.")


@models.command("list")
@output()
def list_models() -> None:
    """List the models with their inputs. The exit status is 1 if one of them is broken."""
    from perceiverd.cli import models

    raise typer.Exit(models.list_models())


@models.command()
@output()
def info(name: Annotated[str | None, MODEL_NAME] = None) -> None:
    """Describe a model: its folder, its inputs, its network."""
    from perceiverd.cli import models

    models.info(name)


@models.command()
@output()
def verify(name: Annotated[str | None, MODEL_NAME] = None) -> None:
    """Read all of a model and check it: sha256, names, shapes and values of its weights, labels."""
    from perceiverd.cli import models

    models.verify(name)


@models.command("import")
@output()
def import_model(
    source: Annotated[
        str, typer.Argument(help="hf:deepmind/multimodal-perceiver, or a folder with its files.", metavar="SOURCE")
    ],
    into: Annotated[
        Path | None, typer.Option(help="Folder for the model. Default: among your own models.", metavar="FOLDER")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX expression, for weights of unknown licence.", metavar="SPDX")
    ] = None,
) -> None:
    """Convert the public multimodal Perceiver, whose labels are 700 human actions."""
    from perceiverd.cli import models

    models.import_model(source, into, licence)


@models.command()
@output()
def export(
    name: Annotated[str | None, MODEL_NAME] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="Folder for the graph and a copy of the weights. Default: the model's.", metavar="FOLDER"),
    ] = None,
) -> None:
    """Write a model as an ONNX graph, model.onnx, for other programs. Its weights stay in model.safetensors."""
    from perceiverd.cli import models

    models.export(name, into)


@configs.command()
@output()
def check(file: Annotated[Path, typer.Argument(help=CONFIG_HELP, metavar="FILE")]) -> None:
    """Check whether the daemon accepts this file. It exits with the status that `run` would have.

    Problems outside the file, such as missing keys or folders, are printed as notes. `perceiverd doctor` checks those.
    """
    from perceiverd.cli import config

    raise typer.Exit(config.check(file))


@configs.command()
@output()
def show(
    file: Annotated[
        Path | None, typer.Argument(help="Configuration file. Default: none, which shows the defaults.", metavar="FILE")
    ] = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="Print every option, not only those that differ from their defaults.")
    ] = False,
) -> None:
    """Print a configuration as the daemon reads it, without passwords."""
    from perceiverd.cli import config

    raise typer.Exit(config.show(file, effective=effective))


@configs.command("schema")
@output()
def config_schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from perceiverd.cli import config

    config.schema()


@bridges.command()
@output()
def mqtt(
    broker: Annotated[
        str,
        typer.Option(
            help="The broker: mqtt://USER@HOST:PORT or mqtts://USER@HOST:PORT. The password is read from the "
            "environment variable PERCEIVERD_MQTT_PASSWORD.",
            metavar="URL",
        ),
    ],
    endpoint: Annotated[str, typer.Option(help=ENDPOINT_HELP, metavar="ENDPOINT")] = SERVICE_ENDPOINT,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Create a sensor for this label at start-up; other labels get one at their first event. "
            "Can be repeated.",
            metavar="NAME|MID",
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="First part of each MQTT topic.", metavar="TOPIC")] = "perceiverd",
    discovery: Annotated[
        str, typer.Option(help="Home Assistant's discovery prefix; empty for no discovery.", metavar="TOPIC")
    ] = "homeassistant",
    ca: Annotated[
        Path | None,
        typer.Option(
            help="Certificate of the authority that signed the broker's. Default: the system's authorities.",
            metavar="FILE",
        ),
    ] = None,
    server_key: Annotated[Path | None, SERVER_KEY] = None,
    secret_key: Annotated[Path | None, SECRET_KEY] = None,
) -> None:
    """Forward labels to an MQTT broker, for Home Assistant and other systems. Needs the extra `mqtt`."""
    try:
        from perceiverd.mqtt import bridge
    except ModuleNotFoundError as error:
        if error.name != "paho":
            raise
        raise PerceiverdError(f"the bridge needs an extra: pip install 'perceiverd[mqtt]' ({error})") from error
    try:
        status = bridge.run(
            bridge.BridgeOptions(endpoint, broker, label or (), prefix, discovery, ca, server_key, secret_key)
        )
    except ConfigError as error:
        report(error)
        status = EXIT_CONFIG
    raise typer.Exit(status)


@keys.command("new")
@output()
def new_keys(
    name: Annotated[str, typer.Argument(help="Name of the owner: letters, digits, _, . and -.", metavar="NAME")],
    folder: Annotated[Path, typer.Option(help="Folder for the two files.", metavar="FOLDER")] = Path(),
) -> None:
    """Make a pair of keys for a daemon or a client, and explain where each file belongs."""
    from perceiverd.cli.keys import new_pair

    new_pair(name, folder)
