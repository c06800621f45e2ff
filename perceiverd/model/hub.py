"""Models from elsewhere: fetched from the Hugging Face hub or read from a folder, converted, and put on a shelf.

A model appears there whole or not at all: it is made in a folder beside, which takes the name at the end.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perceiverd import __version__
from perceiverd.core.errors import ModelError, PerceiverdError
from perceiverd.core.labels import KINETICS, Label
from perceiverd.model.card import Card, bundled, load_card, own_shelf, read_labels
from perceiverd.model.checkpoint import load_network, save_model
from perceiverd.model.convert import HubConfig, convert, labels_of
from perceiverd.model.geometry import Geometry

PREFIX = "hf:"
LICENCE = "Apache-2.0 AND CC-BY-4.0"
"""Of the public checkpoint: what its page on the hub says, and what DeepMind said of the parameters."""
UNKNOWN_LICENCE = "LicenseRef-unknown"
CONFIG_FILE, WEIGHTS_FILES = "config.json", ("model.safetensors", "pytorch_model.bin")


def install(source: str, into: Path | None = None, licence: str | None = None) -> Card:
    """Convert `hf:OWNER/NAME` or a folder into the model folder `into`, or one on the user's shelf.

    Raises ModelError where the checkpoint can't be used or the folder is taken, and leaves nothing behind.
    """
    public = source.startswith(PREFIX)
    name = Path(source.removeprefix(PREFIX).rstrip("/")).name or "model"
    into = own_shelf() / name if into is None else into
    if into.parent == own_shelf() and into.name in bundled():
        raise ModelError(f"{into.name} comes with perceiverd and would be found first; give another name with --into")
    try:
        if into.exists():
            raise ModelError(f"{into}: is there already; remove it first, or give another folder with --into")
    except OSError as error:  # a name too long for a folder
        raise ModelError(f"{into}: no model can be put here: {error.strerror}") from error
    folder = _fetched(source.removeprefix(PREFIX)) if public else Path(source)
    config, weights = _config(folder / CONFIG_FILE), _weights(folder)
    try:
        geometry, network = convert(config, weights)
        labels = labels_of(config, read_labels(KINETICS))
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    licence = licence or (LICENCE if public else UNKNOWN_LICENCE)
    with _beside(into) as made:
        save_model(made, network, geometry, labels, name=name, licence=licence, scores="softmax")
        (made / "README.md").write_text(
            _card(name, source if public else folder.name, licence, geometry, labels), "utf-8"
        )
        load_network(load_card(made))
    return load_card(into)


@contextmanager
def _beside(into: Path) -> Iterator[Path]:
    """A folder that becomes `into` at the end, and is gone after a fault."""
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
    except OSError as error:
        raise ModelError(f"{into.parent}: no model can be put here: {error.strerror}") from error
    try:
        yield made
        made.chmod(0o755)  # made for its maker alone, which no service's own user could read
        made.rename(into)
    except OSError as error:
        raise ModelError(f"{into}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ reading
def _config(path: Path) -> HubConfig:
    try:
        return msgspec.json.decode(path.read_bytes(), type=HubConfig)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the checkpoint's config: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not the config of a Perceiver ({error})") from error


def _weights(folder: Path) -> Mapping[str, Tensor]:
    """The checkpoint's tensors; a pickle is read without running anything in it."""
    for name in WEIGHTS_FILES:
        path = folder / name
        if not path.exists():
            continue
        return _tensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    raise ModelError(f"{folder}: has neither {' nor '.join(WEIGHTS_FILES)}")


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file, or cut short ({_first_line(error)})") from error


def _unpickled(path: Path) -> Mapping[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: holds more than tensors, and is not trusted") from error
    except Exception as error:  # which one depends on which byte is wrong: IndexError, AssertionError, TypeError, ...
        raise ModelError(f"{path}: not a checkpoint, or cut short ({_first_line(error)})") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ModelError(f"{path}: holds something other than named tensors")
    if not all(isinstance(name, str) for name in found):
        raise ModelError(f"{path}: holds tensors whose names are no text")
    return found


# ------------------------------------------------------------------------------------------------ fetching
def _fetched(repository: str) -> Path:
    """The folder in the hub's own cache that holds config and weights; what was fetched before is not fetched again.

    An interrupted download goes on where it stopped, and only a whole file gets its name there.
    """
    # Its faster way of downloading, by the package hf_xet, retries for ever where the hub's storage fails, or raises
    # errors of no kind of its own (hf_xet 1.x). Plain HTTP fetches 79 MB as well. It is read when the hub's library is
    # imported, which nothing does before.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    try:
        from huggingface_hub.utils import logging
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise PerceiverdError("the hub needs more: pip install 'perceiverd[hub]'; or give a folder") from error
    logging.set_verbosity_error()  # it tells of each attempt; the last one's fault is told below
    if config := _downloaded(repository, CONFIG_FILE):
        for name in WEIGHTS_FILES:
            if weights := _downloaded(repository, name):
                _compare(weights)
                return config.parent
        raise ModelError(f"{PREFIX}{repository}: has neither {' nor '.join(WEIGHTS_FILES)}")
    raise ModelError(f"{PREFIX}{repository}: has no {CONFIG_FILE}")


def _downloaded(repository: str, name: str) -> Path | None:
    """One file in the hub's cache; None where the hub says that the repository has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, name))
    except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError, though the hub has not been asked
        why = _first_line(error.__cause__ or error)
        raise ModelError(f"{PREFIX}{repository}: cannot be fetched: the hub can't be reached ({why})") from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # its own, its HTTP client's and plain RuntimeError have no base in common but this
        raise ModelError(f"{PREFIX}{repository}: cannot be fetched ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _compare(path: Path) -> None:
    """Raises ModelError where a large file is not what the hub says it is: its cache names it by its sha256."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        with blob.open("rb") as data:
            found = hashlib.file_digest(data, "sha256").hexdigest()
        if found != blob.name:
            raise ModelError(
                f"{path.name}: sha256 is {found[:12]}…, the hub says {blob.name[:12]}…: remove {blob}, then fetch again"
            )


CARD = """# {name}

The Perceiver IO of Jaegle et al. (2021) that was trained by its authors to compress video, sound and the name of what
is done in it (Kinetics-700-2020), converted by perceiverd {version} from `{source}`. Only what scores the 700 names is
kept; two linear layers that follow each other at the end have become one, and the masked label token is a constant.

* **Sees** {frames} pictures of {width}x{height} at {fps:g} a second, the centre of the frame, values 0 to 1; **hears**
  {samples} samples at {rate_hz} Hz, -1 to 1: windows of {seconds:g} s.
* **Scores** are a softmax: they sum to 1 over all 700, so something is always named. {labels}
* **Quality**: not measured here. The paper has variants of 10.2 % and of 45 % top-1; which of them was published is not
  documented.
* **GELU** is `{gelu}`, as the checkpoint's config says. (The original, in JAX, used the approximation by `tanh`;
  logits differ by about 0.001.)
* **Licence**: {licence}. {credit}
* A modality that is missing is masked. It was not trained so: scores without sound or without sight are worth less.
"""
NAMES_CREDIT = "Names of actions: Kinetics, DeepMind, CC BY 4.0."
WEIGHTS_CREDIT = "Weights: DeepMind, CC BY 4.0, published on the Hugging Face hub under Apache-2.0."


ACTIONS = "They are human actions, no sounds,\n  and no labels of AudioSet; their ids are `k700/...`."
OWN = """{own} of them have names
  that are not Kinetics', from the checkpoint's config; their ids are `user/...`, those of the others `k700/...`."""


def _card(name: str, source: str, licence: str, geometry: Geometry, labels: Sequence[Label]) -> str:
    own = sum(label.mid.startswith("user/") for label in labels)
    credit = f"{WEIGHTS_CREDIT} {NAMES_CREDIT}" if licence == LICENCE else NAMES_CREDIT
    media = {**msgspec.to_builtins(geometry.audio), **msgspec.to_builtins(geometry.video)}
    return CARD.format(
        name=name,
        version=__version__,
        source=source,
        seconds=geometry.window_ns / 1e9,
        gelu=geometry.trunk.gelu,
        licence=licence,
        credit=credit,
        labels=OWN.format(own=own) if own else ACTIONS,
        **media,
    )
