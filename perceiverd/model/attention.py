"""Attention as in the paper: queries, keys and values are projected for every token.

It knows nothing of positions or modalities. `factorised` has a faster form of `CrossAttend` for inference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention of queries (B, N, query_width) to inputs (B, M, input_width).

    `width` query, key and value channels are split over `heads`; the result has `query_width` channels.
    """

    def __init__(self, query_width: int, input_width: int, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels cannot be split over {heads} heads")
        self.heads = heads
        self.query = nn.Linear(query_width, width)
        self.key = nn.Linear(input_width, width)
        self.value = nn.Linear(input_width, width)
        self.out = nn.Linear(width, query_width)

    def forward(self, queries: Tensor, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, query_width); `mask` (B, M) is False for tokens that must not be read."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, N or M, width / H)
            for project, x in ((self.query, queries), (self.key, inputs), (self.value, inputs))
        )
        mask = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, M)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, H, N, width / H)
        return self.out(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return] # (B, N, query_width)


class Mlp(nn.Sequential):
    """Linear, GELU, linear, with `widening` times as many channels between. `gelu`: `erf` (exact) or `tanh` (close)."""

    def __init__(self, width: int, widening: int, gelu: str = "erf") -> None:
        activation = nn.GELU(approximate="tanh" if gelu == "tanh" else "none")
        super().__init__(nn.Linear(width, widening * width), activation, nn.Linear(widening * width, width))


class CrossAttend(nn.Module):
    """Pre-LN block: latents (B, N, D) read a byte array (B, M, C), then an MLP. Latents and bytes are each normalised.

    `residual`: whether the latents are added to what they read.
    """

    def __init__(
        self,
        query_width: int,
        input_width: int,
        width: int,
        heads: int,
        widening: int,
        gelu: str = "erf",
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.query_norm = nn.LayerNorm(query_width)
        self.input_norm = nn.LayerNorm(input_width)
        self.attention = Attention(query_width, input_width, width, heads)
        self.mlp_norm = nn.LayerNorm(query_width)
        self.mlp = Mlp(query_width, widening, gelu)

    def forward(self, queries: Tensor, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.finish(queries, self.attention(self.query_norm(queries), self.input_norm(inputs), mask))

    def finish(self, queries: Tensor, read: Tensor) -> Tensor:
        """The part after attention: the residual and the MLP."""
        x = queries + read if self.residual else read
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class SelfAttend(nn.Module):
    """Pre-LN block: latents (B, N, D) read themselves, then an MLP."""

    def __init__(self, width: int, heads: int, widening: int, gelu: str = "erf") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, width, width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, widening, gelu)

    def forward(self, latents: Tensor) -> Tensor:
        normal = self.norm(latents)
        x = latents + self.attention(normal, normal)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


def initialise(module: nn.Module) -> None:
    """Draw weights as the paper's code does: truncated normal, variance 1 / fan-in; biases zero."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        # A normal truncated at two sigma has a standard deviation of 0.8796.
        sigma = module.weight[0].numel() ** -0.5 / 0.87962566103423978
        nn.init.trunc_normal_(module.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)
