"""Nodes for the layers that all parts of the network use. Names of weights are those of `perceiver.Perceiver`.

A "row" is one vector: values are (rows, channels) unless a comment says otherwise, so that each product is one Gemm.
"""

from __future__ import annotations

from perceiverd.model.graph.builder import GraphBuilder, Value

EPSILON = 1e-5
"""Of LayerNorm, as torch has it."""


def linear(g: GraphBuilder, x: Value, name: str, inputs: int, outputs: int) -> Value:
    """(rows, outputs) of rows (rows, inputs)."""
    return g.node("Gemm", x, g.weight(f"{name}.weight", outputs, inputs), g.weight(f"{name}.bias", outputs), transB=1)


def layer_norm(g: GraphBuilder, x: Value, name: str, width: int) -> Value:
    """Of the last axis, whose size is `width`."""
    weight, bias = g.weight(f"{name}.weight", width), g.weight(f"{name}.bias", width)
    return g.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=EPSILON)


def mlp(g: GraphBuilder, x: Value, name: str, width: int, widening: int, gelu: str) -> Value:
    hidden = linear(g, x, f"{name}.0", width, widening * width)
    hidden = g.node("Gelu", hidden, approximate="tanh" if gelu == "tanh" else "none")
    return linear(g, hidden, f"{name}.2", widening * width, width)


def split_heads(g: GraphBuilder, x: Value, tokens: int, heads: int, width: int, *, keys: bool = False) -> Value:
    """(B, heads, tokens, width / heads) of rows (B * tokens, width); `keys` swaps the last two axes."""
    x = g.reshape(x, -1, tokens, heads, width // heads)
    return g.transpose(x, 0, 2, 3, 1) if keys else g.transpose(x, 0, 2, 1, 3)


def merge_heads(g: GraphBuilder, x: Value, width: int) -> Value:
    """Rows (B * N, width) of (B, heads, N, width / heads)."""
    return g.reshape(g.transpose(x, 0, 2, 1, 3), -1, width)


def attend(g: GraphBuilder, queries: Value, keys: Value, values: Value) -> Value:
    """(B, H, N, d) of queries (B, H, N, d), already scaled, keys (B, H, d, M) and values (B, H, M, d)."""
    shares = g.node("Softmax", g.node("MatMul", queries, keys), axis=-1)
    return g.node("MatMul", shares, values)


def self_attend(g: GraphBuilder, x: Value, name: str, tokens: int, width: int, heads: int) -> Value:
    """Rows of `attention.Attention` over rows (B * tokens, width) that are normalised already."""
    query, key, value = (linear(g, x, f"{name}.{part}", width, width) for part in ("query", "key", "value"))
    query = g.node("Mul", query, g.floats((width // heads) ** -0.5))
    read = attend(
        g,
        split_heads(g, query, tokens, heads, width),
        split_heads(g, key, tokens, heads, width, keys=True),
        split_heads(g, value, tokens, heads, width),
    )
    return linear(g, merge_heads(g, read, width), f"{name}.out", width, width)


def batch_of(g: GraphBuilder, value: Value) -> Value:
    """(1,): the size of the first axis."""
    return g.node("Shape", value, start=0, end=1)


def expand(g: GraphBuilder, value: Value, batch: Value, *shape: int) -> Value:
    """(B, *shape) of a value (*shape) or (1, *shape)."""
    return g.node("Expand", value, g.concat(batch, g.ints(*shape), axis=0))
