"""`perceiverd models`: list, describe, verify, import and export models. Loads torch only to verify and to import."""

from __future__ import annotations

from pathlib import Path

from perceiverd.cli.console import EXIT_FAILED, report
from perceiverd.core.errors import ModelError
from perceiverd.model import card


def list_models() -> int:
    """Print one line for each bundled or imported model; returns 1 if a model's card cannot be read, else 0."""
    status = 0
    for name in dict.fromkeys(card.bundled() + card.imported()):
        try:
            print(_line(name, card.load_card(name)))
        except ModelError as error:
            report(error)
            status = EXIT_FAILED
    return status


def _line(name: str, found: card.Card) -> str:
    geometry = found.geometry
    inputs = " and ".join(part.name for part in geometry.modalities)
    return f"{name:20} {geometry.classes} labels, {inputs} of {geometry.window_ns / 1e9:g} s, {found.licence}"


def info(name: str | None) -> None:
    """Print what a model's card says; the default model if `name` is None. Raises ModelError."""
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
    kind = "each label has its own probability" if found.scores == "sigmoid" else "all labels share one probability"
    print(f"scores    {kind} ({found.scores})")


def verify(name: str | None) -> None:
    """Load all of a model and print a summary. Raises ModelError if a part is missing, broken or has another sha256."""
    from perceiverd.model.checkpoint import load_network

    found = card.load_card(name or card.DEFAULT)
    count = sum(tensor.numel() for tensor in load_network(found).state_dict().values())
    print(f"{found.folder}: complete; {count} numbers, {len(found.labels)} labels, sha256 {found.sha256}")


def import_model(source: str, folder: Path | None, licence: str | None) -> None:
    """Convert a public checkpoint into `folder`, or into the user's own models if None. Raises ModelError."""
    from perceiverd.model import hub

    installed = hub.install(source, folder, licence)
    print(f"{installed.name}: {len(installed.labels)} labels, {installed.licence}, in {installed.folder}")


def export(name: str | None, folder: Path | None) -> None:
    """Write a model's ONNX graph into `folder`, or beside its weights if None. Raises ModelError."""
    from perceiverd.model.export import export

    found = card.load_card(name or card.DEFAULT)
    file = export(found, folder)
    inputs = []
    if audio := found.geometry.audio:
        inputs.append(f"audio (batch, {audio.samples}) float32")
    if video := found.geometry.video:
        inputs.append(f"video (batch, {video.frames}, {video.height}, {video.width}, 3) uint8")
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB; the weights are in model.safetensors beside it")
    print(f"inputs    {', '.join(inputs)}")
    print(f"output    logits (batch, {found.geometry.classes}) float32, before calibration")
