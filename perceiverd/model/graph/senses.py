"""Nodes of what each modality alone says about the labels: `senses.SensesHead`, from the means of the stems' output."""

from __future__ import annotations

from collections.abc import Mapping

from perceiverd.model.geometry import Geometry, Modality
from perceiverd.model.graph.builder import GraphBuilder, Value
from perceiverd.model.graph.layers import linear

# As in `senses`, which loads torch; a test compares them.
RAREST = 1e-6
JOINT_CENTRE, JOINT_SPREAD = -6.0, 4.0


def sense_inputs(g: GraphBuilder, geometry: Geometry, means: Mapping[str, Value]) -> Value:
    """(B, labels) for the last layer, from the mean (B, channels) of the output of each stem that the graph has."""
    found = [_sense(g, modality, means[modality.name]) for modality in geometry.modalities if modality.name in means]
    joint = found[0] if len(found) == 1 else _either(g, *found)
    joint = g.node("Sub", joint, g.floats(JOINT_CENTRE))
    return g.node("Mul", joint, g.floats(1 / JOINT_SPREAD))


def _sense(g: GraphBuilder, modality: Modality, mean: Value) -> Value:
    """Logits (B, labels): `senses.Sense`."""
    assert modality.sense
    name, labels, classes = f"head.senses.{modality.name}", modality.sense.labels, modality.sense.classes
    logits = linear(g, mean, f"{name}.direct", modality.content, labels)
    if not classes:
        return logits
    shares = g.node("Softmax", linear(g, mean, f"{name}.classes", modality.content, classes), axis=-1)
    shares = g.node("MatMul", shares, g.weight(f"{name}.table", classes, labels))
    shares = g.node("Clip", shares, g.floats(RAREST), g.floats(1 - RAREST))
    odds = g.node("Sub", g.node("Log", shares), g.node("Log", g.node("Sub", g.floats(1.0), shares)))
    return g.node("Add", logits, g.node("Mul", g.weight(f"{name}.gain", labels), odds))


def _either(g: GraphBuilder, audible: Value, visible: Value) -> Value:
    """`senses.either`."""
    parts = (audible, visible, g.node("Add", audible, visible))
    stacked = g.concat(*(g.node("Unsqueeze", each, g.ints(0)) for each in parts), axis=0)
    return g.reduce("LogSumExp", stacked, 0)
