"""Nodes that fold weights in float64, as `factorised` does. A runtime computes them once, when it loads the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perceiverd.model.graph import proto
from perceiverd.model.graph.builder import GraphBuilder, Value
from perceiverd.model.graph.layers import EPSILON, layer_norm, linear, split_heads


@dataclass(frozen=True, slots=True)
class Folded:
    """Projections of a cross-attend for tokens (x - mean) / sigma, in float64; see `factorised.folded_projections`."""

    key: Value
    """(H, W / H, C)."""
    value: Value
    """(H, C, s)."""
    bias: Value
    """(outputs,)."""
    outputs: int
    """H * s."""

    def single(self, g: GraphBuilder, value: Value) -> Value:
        """The same in float32."""
        return g.cast(value, proto.FLOAT)


def folded_projections(g: GraphBuilder, name: str, inputs: int, across: int, heads: int, width: int) -> Folded:
    """Of the cross-attend of this name, from tokens of `inputs` channels; `width`: channels of its queries."""
    gamma, beta = (g.weight64(f"{name}.input_norm.{part}", inputs) for part in ("weight", "bias"))
    attention = f"{name}.attention"
    key, value = (g.weight64(f"{attention}.{part}.weight", across, inputs) for part in ("key", "value"))
    g.weight(f"{attention}.key.bias", across)  # equal for all tokens: a softmax ignores it
    key = _centred(g, g.node("Mul", key, gamma), 1)
    key = g.node("Mul", key, g.constant(np.full(1, (across // heads) ** -0.5)))
    bias = g.node("MatMul", value, g.reshape(beta, inputs, 1))
    bias = g.node("Add", bias, g.reshape(g.weight64(f"{attention}.value.bias", across), across, 1))
    value = g.node("Mul", value, gamma)
    outputs = across
    if heads == 1:
        out, outputs = g.weight64(f"{attention}.out.weight", width, across), width
        value, bias = g.node("MatMul", out, value), g.node("MatMul", out, bias)
        bias = g.node("Add", bias, g.reshape(g.weight64(f"{attention}.out.bias", width), width, 1))
    value = _centred(g, value, 1)
    return Folded(
        g.reshape(key, heads, across // heads, inputs),
        g.transpose(g.reshape(value, heads, outputs // heads, inputs), 0, 2, 1),
        g.reshape(bias, outputs),
        outputs,
    )


def _centred(g: GraphBuilder, value: Value, axis: int) -> Value:
    return g.node("Sub", value, g.reduce("Mean", value, axis, keep=True))


def projected_queries(
    g: GraphBuilder,
    name: str,
    queries: Value,
    width: int,
    across: int,
    heads: int,
    tokens: int,
    *,
    exact: bool,
) -> Value:
    """(B, H, N, W / H) of rows (B * N, width); `exact`: rows and result are float64."""
    query = f"{name}.attention.query"
    if not exact:
        normal = layer_norm(g, queries, f"{name}.query_norm", width)
        return split_heads(g, linear(g, normal, query, width, across), tokens, heads, across)
    norm = (g.weight64(f"{name}.query_norm.{part}", width) for part in ("weight", "bias"))
    normal = g.node("LayerNormalization", g.cast(queries, proto.DOUBLE), *norm, axis=-1, epsilon=EPSILON)
    weight, bias = g.weight64(f"{query}.weight", across, width), g.weight64(f"{query}.bias", across)
    q = g.node("Add", g.node("MatMul", normal, g.transpose(weight, 1, 0)), bias)
    return split_heads(g, q, tokens, heads, across)
