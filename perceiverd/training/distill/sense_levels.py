"""Lowers the labels of a classifier that come up among the highest although their windows lack them.

A fit with many general labels, and a teacher with labels such as "Inside, small room", fill the list of the highest
scores with labels that are not there, and a rare label that is there finds no place. So each label that comes up more
often than its fair share gets lower. Its scores stay in order, so its average precision stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from perceiverd.model.senses import Sense

SURE = 3.5
"""A logit, 0.97 as a score: from here on a label is there, so it is lowered by DEEPEST at most."""
DEEPEST = 1.0
"""How far, in logits, a sure label is lowered: from 0.97 to 0.92."""
NEAREST = 2.0
"""The usual logit of a label that is not there counts as at least so far below SURE."""
CHUNK = 4_096
"""Windows that are scored at a time."""


@dataclass(frozen=True, eq=False)
class FairShare:
    """How often a label may come up in vain, and what happens if it comes up more often."""

    top: int
    """This many labels with the highest scores count as coming up."""
    share: float
    """The share of windows in which a label may come up in vain."""
    strength: Tensor
    """(classes,): a label that comes up n times as often is lowered by this times log(n)."""


def lower(sense: Sense, pooled: Tensor, present: Tensor, fair: FairShare) -> Tensor:
    """Lower a classifier's labels in place; returns by how much (classes,), in logits, where they come up in vain.

    `pooled` (N, channels) and `present` (N, classes) are windows, and which labels they have. A window counts less the
    surer the classifier is.
    """
    vain, times, total = (torch.zeros(present.shape[1]) for _ in range(3))
    for at in range(0, len(pooled), CHUNK):
        with torch.no_grad():
            logits = sense(pooled[at : at + CHUNK])
        best = logits.topk(min(fair.top, logits.shape[1]), dim=1).indices
        up = torch.zeros_like(logits).scatter_(1, best, 1.0) * ~present[at : at + CHUNK]
        vain += (up * (1 - logits.sigmoid())).sum(dim=0)
        times += up.sum(dim=0)
        total += (up * logits).sum(dim=0)
    drop = fair.strength * (vain / len(pooled) / fair.share).clamp(min=1).log()
    usual = (total / times.clamp(min=1)).clamp(max=SURE - NEAREST)
    # One line for each label: `usual` goes down by `drop`, and SURE by at most DEEPEST.
    at_sure = drop.clamp(max=DEEPEST)
    slope = 1 + (drop - at_sure) / (SURE - usual)
    _rescale(sense, slope, SURE - at_sure - slope * SURE)
    return drop


def _rescale(sense: Sense, slope: Tensor, offset: Tensor) -> None:
    """Make each label's logit slope * logit + offset."""
    with torch.no_grad():
        sense.direct.weight.mul_(slope[:, None])
        sense.direct.bias.mul_(slope).add_(offset)
        if sense.classes is not None:
            sense.gain.mul_(slope)
