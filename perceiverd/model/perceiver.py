"""The Perceiver: latents read a byte array of any modalities, and score labels.

One network for the whole family: any number of cross-attends, the published weight sharing, the mean head (Jaegle et
al., "Perceiver", ICML 2021) and the label-query head ("Perceiver IO", 2021). It knows tokens and numbers, but no
cameras, seconds or label names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiverd.model.attention import CrossAttend, SelfAttend, initialise
from perceiverd.model.encoding import positions
from perceiverd.model.geometry import LayerGeometry, Modality, Trunk
from perceiverd.model.senses import SensesHead


# ---------------------------------------------------------------------------------------------- byte array
class Convolution(nn.Conv2d):
    """A convolution that pads both sides equally; an odd row or column of padding goes to the end.

    TensorFlow's "SAME" convolutions, with which the layers of public networks were trained, pad like this.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, depthwise: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=inputs if depthwise else 1)
        before, odd = divmod(kernel - stride, 2)
        self.margins = (before, before + odd) * 2 if kernel > 1 else (0,) * 4
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.margins) if any(self.margins) else x)


class StemLayer(nn.Module):
    """One `geometry.LayerGeometry`; `widen`: hidden channels over input channels of an inverted layer."""

    def __init__(self, inputs: int, layer: LayerGeometry, ceiling: float, *, widen: int) -> None:
        super().__init__()
        hidden = inputs * widen
        steps = {
            "conv": [Convolution(inputs, layer.channels, layer.kernel, layer.stride)],
            "separable": [
                Convolution(inputs, inputs, layer.kernel, layer.stride, depthwise=True),
                Convolution(inputs, layer.channels),
            ],
            "inverted": [
                *([Convolution(inputs, hidden)] if widen > 1 else []),
                Convolution(hidden, hidden, layer.kernel, layer.stride, depthwise=True),
                Convolution(hidden, layer.channels),
            ],
        }
        self.steps = nn.ModuleList(steps[layer.kind])
        self.linear = layer.kind == "inverted"
        self.residual = self.linear and layer.stride == 1 and inputs == layer.channels
        self.ceiling = ceiling or math.inf

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for step in self.steps:
            y = step(y)
            if not (self.linear and step is self.steps[-1]):
                y = y.clamp(0, self.ceiling)
        return x + y if self.residual else y


class Stem(nn.Module):
    """Makes the content of tokens by convolutions over a whole image, so a token also has its surroundings.

    It follows Perceiver IO's "2D conv" preprocessing (Jaegle et al. 2021, ImageNet), for models with little data.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        assert modality.stem
        # Video has (time, y, x) tokens and colours. A spectrogram is one image with (time, frequency) tokens.
        *times, self.rows, self.columns = modality.grid
        self.images, self.patch = math.prod(times), modality.stem.stride
        inputs, layers = 3 if len(modality.patch) == 4 else 1, []
        for number, layer in enumerate(modality.stem.parsed):
            first = all(before.kind != "inverted" for before in modality.stem.parsed[:number])
            layers.append(StemLayer(inputs, layer, modality.stem.ceiling, widen=1 if first else 6))
            inputs = layer.channels
        self.layers = nn.ModuleList(layers)
        # Subtracted from the input, so that the zeros of the first convolution's padding stand for it.
        border = torch.tensor(modality.stem.border)[:, None, None] if modality.stem.border else None
        self.border = nn.Buffer(border, persistent=False) if border is not None else None
        # Without it, position features, which are several times larger at first, would dominate the content.
        self.norm = nn.LayerNorm(inputs)

    def forward(self, values: Tensor) -> Tensor:
        """Content (B, M, channels) of tokens (B, M, values)."""
        content: Tensor = self.norm(self.convolve(values))
        return content

    def convolve(self, values: Tensor) -> Tensor:
        """Content (B, M, channels) before normalisation, of tokens (B, M, values)."""
        return self.features(self.as_images(values))

    def as_images(self, values: Tensor) -> Tensor:
        """(B * T, colours, Y, X) of tokens (B, M, values), channels last in memory."""
        x = values.unflatten(2, (self.patch, self.patch, -1)).unflatten(1, (self.images, self.rows, self.columns))
        x = x.transpose(3, 4).flatten(0, 1).flatten(3, 4).flatten(1, 2)  # (B * T, Y, X, colours)
        images: Tensor = x.permute(0, 3, 1, 2)
        return images

    def features(self, x: Tensor) -> Tensor:
        """Content (B, M, channels) before normalisation, of images (B * T, colours, Y, X)."""
        if self.border is not None:
            x = x - self.border
        for layer in self.layers:
            x = layer(x)  # (B * T, channels, Y / stride, X / stride)
        x = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B * T, Y' * X', channels)
        features: Tensor = x.unflatten(0, (-1, self.images)).flatten(1, 2)  # (B, M, channels)
        return features


class ByteArray(nn.Module):
    """Concatenates content, position and learned channels of each token, one modality after another.

    Every token has the same width: the content and position of the widest modality, plus `modality_channels`. The
    tokens of a narrower modality are filled up with learned channels.
    """

    def __init__(self, modalities: tuple[Modality, ...], modality_channels: int, constants: int = 0) -> None:
        """`constants`: the number of learned tokens that every window has, at the end of the byte array."""
        super().__init__()
        self.modalities = modalities
        self.width = max(modality.width for modality in modalities) + modality_channels
        self.padding = nn.ParameterDict(
            {m.name: nn.Parameter(0.02 * torch.randn(self.width - m.width)) for m in modalities}
        )
        self.constants = nn.Parameter(0.02 * torch.randn(constants, self.width)) if constants else None
        self.stems = nn.ModuleDict({m.name: Stem(m) for m in modalities if m.stem})
        for modality in modalities:
            self.register_buffer(f"position_{modality.name}", positions(modality), persistent=False)

    def convolve(self, contents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B, M_i, channels_i): what the stems make of each modality's tokens (B, M_i, values_i), not normalised.

        A modality without a stem keeps its tokens' values.
        """
        return {
            name: self.stems[name].convolve(content) if name in self.stems else content  # type: ignore[operator]
            for name, content in contents.items()
        }

    def forward(self, contents: Mapping[str, Tensor]) -> Tensor:
        """(B, M, width) from the output of `convolve`; a modality may be left out."""
        parts = []
        for modality in self.modalities:
            if (content := contents.get(modality.name)) is None:
                continue
            if modality.name in self.stems:
                content = self.stems[modality.name].norm(content)  # type: ignore[operator]
            batch, tokens = content.shape[:2]
            position: Tensor = getattr(self, f"position_{modality.name}")
            fixed = torch.cat([position, self.padding[modality.name].expand(tokens, -1)], dim=1)
            parts.append(torch.cat([content, fixed.to(content.dtype).expand(batch, -1, -1)], dim=2))
        if self.constants is not None:
            parts.append(self.constants.to(parts[0].dtype).expand(len(parts[0]), -1, -1))
        return torch.cat(parts, dim=1)

    def mask(self, contents: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor | None:
        """(B, M), False for the tokens of windows without the modality; None if no window lacks a modality."""
        names = [modality.name for modality in self.modalities if modality.name in contents]
        if all(name not in present or bool(present[name].all()) for name in names):
            return None
        masks = []
        for name in names:
            batch, tokens = contents[name].shape[:2]
            here = present.get(name, torch.ones(batch, dtype=torch.bool, device=contents[name].device))
            masks.append(here[:, None].expand(batch, tokens))
        if self.constants is not None:
            masks.append(here.new_ones(batch, len(self.constants)))
        return torch.cat(masks, dim=1)


# ---------------------------------------------------------------------------------------------- heads
class MeanHead(nn.Module):
    """The mean of the latents, then one linear layer (Perceiver)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, classes)

    def forward(self, latents: Tensor) -> Tensor:
        return self.out(latents.mean(dim=1))  # type: ignore[no-any-return] # (B, classes)


class QueryHead(nn.Module):
    """A learned label query attends to the latents, then one linear layer (Perceiver IO)."""

    def __init__(self, trunk: Trunk, classes: int) -> None:
        super().__init__()
        width, across = trunk.query_width or trunk.width, trunk.width
        self.query = nn.Parameter(torch.empty(1, width))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.attend = CrossAttend(width, across, across, 1, trunk.widening, trunk.gelu, trunk.query_residual)
        self.out = nn.Linear(width, classes)

    def forward(self, latents: Tensor) -> Tensor:
        query = self.query.expand(latents.shape[0], -1, -1)  # (B, 1, D)
        return self.out(self.attend(query, latents)[:, 0])  # type: ignore[no-any-return] # (B, classes)


# ---------------------------------------------------------------------------------------------- network
class Perceiver(nn.Module):
    """Logits (B, classes) from the tokens of each modality."""

    def __init__(self, modalities: tuple[Modality, ...], trunk: Trunk, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.bytes = ByteArray(modalities, trunk.modality_channels, trunk.constants)
        self.latents = nn.Parameter(torch.empty(trunk.latents, trunk.width))

        def cross() -> CrossAttend:
            width = trunk.cross_width or self.bytes.width
            return CrossAttend(trunk.width, self.bytes.width, width, trunk.cross_heads, trunk.widening, trunk.gelu)

        def block() -> nn.ModuleList:
            return nn.ModuleList(
                SelfAttend(trunk.width, trunk.heads, trunk.widening, trunk.gelu) for _ in range(trunk.layers)
            )

        # Published sharing: the first cross-attend has its own weights, all later ones share weights; so do all blocks.
        self.crosses = nn.ModuleList(cross() for _ in range(min(trunk.cross_attends, 2 if trunk.shared else 10**9)))
        self.blocks = nn.ModuleList(block() for _ in range(1 if trunk.shared else trunk.cross_attends))
        self.head = self._head(modalities, classes)
        self.apply(initialise)
        if isinstance(self.head, SensesHead):
            self.head.hand_on()
        nn.init.trunc_normal_(self.latents, std=0.02)

    def _head(self, modalities: tuple[Modality, ...], classes: int) -> MeanHead | QueryHead | SensesHead:
        if self.trunk.head == "senses":
            return SensesHead(modalities, self.trunk, classes)
        return MeanHead(self.trunk.width, classes) if self.trunk.head == "mean" else QueryHead(self.trunk, classes)

    def encode(self, convolved: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """Latents (B, N, D) after all layers, from the output of `ByteArray.convolve`; see `forward`."""
        inputs = self.bytes(convolved)
        mask = self.bytes.mask(convolved, present or {})
        latents = self.latents.to(inputs.dtype).expand(inputs.shape[0], -1, -1)
        for index in range(self.trunk.cross_attends):
            latents = self.crosses[min(index, len(self.crosses) - 1)](latents, inputs, mask)
            for layer in self.blocks[min(index, len(self.blocks) - 1)]:  # type: ignore[attr-defined]
                latents = layer(latents)
        return latents

    def score(self, convolved: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits (B, classes) from the output of `ByteArray.convolve`; see `forward`."""
        is_read = not isinstance(self.head, SensesHead) or self.head.reads_latents(convolved)
        return self.judge(self.encode(convolved, present) if is_read else None, convolved, present)

    def judge(
        self, latents: Tensor | None, convolved: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Logits (B, classes) from what `encode` made of the output of `ByteArray.convolve`.

        `latents` may be None if `SensesHead.reads_latents` says that they are not read.
        """
        if isinstance(self.head, SensesHead):
            pooled = {name: convolved[name].mean(dim=1) for name in self.head.senses if name in convolved}
            return self.head(latents, pooled, present or {})  # type: ignore[no-any-return]
        return self.head(latents)  # type: ignore[no-any-return]

    def forward(self, contents: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits (B, classes).

        `contents` maps a modality's name to its tokens (B, tokens, values); leave out a modality that no window has.
        `present` maps a name to (B,) booleans: the tokens of a window without the modality are masked. Each window
        must have at least one modality.
        """
        return self.score(self.bytes.convolve(contents), present)
