"""The shortest time that a GPU needs for the network's operations: its limit, from the rates that it reaches itself.

Each operation takes as long as its products at the rate of a plain matrix product, or its bytes at the rate of a plain
copy, whichever is longer (Williams et al. 2009, "Roofline"). It is counted on a device without numbers, in no time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.cuda.network import DeviceMedia, DeviceNetwork
from perceiverd.model.cuda.reading import Content, GridQueries, GridRead, GridTables, read_plainly

META = torch.device("meta")
ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


class LimitCounter(TorchDispatchMode):
    """Adds up what operations take at least. Views take nothing; fused attention and our reader count as one each."""

    def __init__(self, flop_s: float, bytes_s: float) -> None:
        """Operations of products per second, and bytes read and written per second."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._flop_s, self._bytes_s = flop_s, bytes_s
        self._is_paused = False
        self.seconds = 0.0

    def add(self, flop: float, tensors: object) -> None:
        """An operation that reads and writes these tensors."""
        self.seconds += max(flop / self._flop_s, _bytes(tensors) / self._bytes_s)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Operations within it do not count."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def read(self, queries: GridQueries, tables: GridTables, content: Content) -> GridRead:
        """A `Reader` that counts as the kernel does: two products, and nothing but inputs and outputs in memory."""
        with self.paused():
            found = read_plainly(queries, tables, content)
        batch, rows = found.log_sum.shape
        places = content.layout
        flop = 4.0 * batch * rows * len(places.tokens) * len(places.channels)
        self.add(flop, (queries.content, *queries.axes, content.values, found.values, found.log_sum))
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_paused:
            return func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if func is not ATTENTION and count is None:
            with self:  # such as a linear layer: its products are operations of their own
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if func is ATTENTION:
            q, k, v = args[:3]
            self.add(2.0 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1]), (q, k, v, out))
        elif not func.is_view:
            self.add(count(*args, **kwargs, out_val=out) if count else 0.0, (args, kwargs, out))
        return out


def limit_s(card: Card, batch: int, half: torch.dtype | None, flop_s: float, bytes_s: float) -> float:
    """What a batch of this model takes at least, in seconds; `half` is the type of products."""
    counter = LimitCounter(flop_s, bytes_s)
    network = DeviceNetwork(load_network(card), card.geometry, META, half, counter.read)
    audio, video = card.geometry.audio, card.geometry.video
    shape = (batch, video.frames, video.height, video.width, 3) if video else None
    media = DeviceMedia(
        torch.empty(batch, audio.samples, device=META) if audio else None,
        torch.empty(shape, dtype=torch.uint8, device=META) if shape else None,
        {modality.name: torch.empty(batch, dtype=torch.bool, device=META) for modality in card.geometry.modalities},
    )
    with torch.inference_mode(), counter:
        network(media)
    return counter.seconds


def _bytes(tensors: object) -> int:
    seen = {id(each): each for each in tree_flatten(tensors)[0] if isinstance(each, Tensor)}
    return sum(each.numel() * each.element_size() for each in seen.values())
