"""The Perceiver: geometry, weights, network, fast inference, import of public checkpoints.

It knows no sockets, devices or time. This face loads no torch.
"""

from perceiverd.model.card import load_card

__all__ = ["load_card"]
