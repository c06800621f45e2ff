"""A head that starts from what each sense says alone: the classifiers of audio and video, and what the latents add.

Each modality's stem is a whole public network without its classifier. The mean of its output goes through that
classifier, so a model knows at least as many labels as the networks it began with. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from perceiverd.model.geometry import Modality, Trunk

RAREST = 1e-6
"""The lowest probability of a label that a table gives, so that its log odds are finite: -13.8."""
ABSENT = -30.0
"""Logit of every label of a modality that a window lacks: it says nothing about any label."""
JOINT_CENTRE, JOINT_SPREAD = -6.0, 4.0
"""The logits are centred and scaled by these before the last layer, so that its inputs have even sizes."""


class Sense(nn.Module):
    """Logits (B, labels) of one modality alone, from the mean (B, channels) of its stem's output.

    They are linear. If the geometry names classes, the log odds of a softmax over those classes are added: a table
    says which labels each class has.
    """

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        assert modality.sense
        labels, classes = modality.sense.labels, modality.sense.classes
        self.direct = nn.Linear(modality.content, labels)
        self.classes = nn.Linear(modality.content, classes) if classes else None
        if classes:
            self.table = nn.Parameter(torch.zeros(classes, labels))
            self.gain = nn.Parameter(torch.ones(labels))

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.direct(pooled)
        if self.classes is None:
            return logits
        shares = self.classes(pooled).softmax(dim=1) @ self.table
        # In bfloat16 the highest probability would be 1, whose log odds are not finite.
        shares = shares.to(torch.promote_types(shares.dtype, torch.float32)).clamp(RAREST, 1 - RAREST)
        return logits + self.gain * (shares.log() - (1 - shares).log())  # type: ignore[no-any-return]


def either(audible: Tensor, visible: Tensor) -> Tensor:
    """Logits that a label is heard or seen or both, if the two are independent: p = 1 - (1 - p1)(1 - p2).

    The result is at least as high as the higher one, so what one sense is sure of, the other cannot hide.
    """
    return torch.logsumexp(torch.stack([audible, visible, audible + visible]), dim=0)


class SensesHead(nn.Module):
    """The last layer is linear over the mean of the latents, of some stems' output, and what the senses say."""

    def __init__(self, modalities: tuple[Modality, ...], trunk: Trunk, classes: int) -> None:
        super().__init__()
        self.senses = nn.ModuleDict({modality.name: Sense(modality) for modality in modalities})
        (labels,) = {modality.sense.labels for modality in modalities if modality.sense}
        self.pooled = {m.name: m.content for m in modalities if m.sense and m.sense.pooled}
        """Channels of the stems whose mean output the last layer reads."""
        self.width, self.labels, self.complete_only = trunk.width, labels, trunk.complete_only
        self.out = nn.Linear(trunk.width + sum(self.pooled.values()) + labels, classes)

    def hand_on(self) -> None:
        """Set the last layer so that it hands on what the senses say. The latents add nothing yet."""
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.weight[: self.labels, -self.labels :] = JOINT_SPREAD * torch.eye(self.labels)
            self.out.bias.fill_(JOINT_CENTRE)

    def joint(self, pooled: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, labels) of the senses together, from the mean (B, channels) of each stem's output.

        `present` is as in `Perceiver.forward`. Each window must have a modality.
        """
        found = []
        for name, mean in pooled.items():
            logits: Tensor = self.senses[name](mean)
            if (here := present.get(name)) is not None:
                logits = torch.where(here[:, None], logits, ABSENT)
            found.append(logits)
        return found[0] if len(found) == 1 else either(*found)

    def forward(self, latents: Tensor | None, pooled: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, classes) from latents (B, N, D); None if no window's latents are read: see `reads_latents`."""
        joint = (self.joint(pooled, present) - JOINT_CENTRE) / JOINT_SPREAD
        parts = [self._latents(latents, pooled, present, joint)]
        for name, channels in self.pooled.items():
            mean, here = pooled.get(name), present.get(name)
            if mean is None:
                mean = joint.new_zeros(len(joint), channels)
            parts.append(mean if here is None else torch.where(here[:, None], mean, 0.0))
        return self.out(torch.cat([*parts, joint], dim=1))  # type: ignore[no-any-return]

    def reads_latents(self, names: Collection[str]) -> bool:
        """Whether the last layer reads the latents of windows that have at most these modalities."""
        return not self.complete_only or self.senses.keys() <= set(names)

    def _latents(
        self, latents: Tensor | None, pooled: Mapping[str, Tensor], present: Mapping[str, Tensor], like: Tensor
    ) -> Tensor:
        """(B, D): the mean of the latents; zeros for windows whose latents are not read."""
        if latents is None or not self.reads_latents(pooled):
            return like.new_zeros(len(like), self.width)
        mean = latents.mean(dim=1)
        if not self.complete_only:
            return mean
        for name in pooled:
            if (here := present.get(name)) is not None:
                mean = torch.where(here[:, None], mean, 0.0)
        return mean
