"""What a daemon says, and between it, once each, that it has fallen silent and that it is heard again.

For programs that show things to people, who need to be told of a silence, but not every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from perceiverd.wire.client import Item, Subscription
from perceiverd.wire.messages import Hello

INTERVALS, LEAST_S = 3, 5.0
"""So many heartbeats that don't come are silence, and never less than so long."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing is heard any more, or something is again."""

    seconds: float
    """For so long nothing was."""
    over: bool


def told(subscription: Subscription, each_s: float) -> Iterator[Item | Silence | None]:
    """Items as they come, for ever; None whenever none has come for `each_s`, so that who draws can draw.

    The subscription's topics have the greeting and heartbeats among them.
    """
    heard_s, patience_s, silent = time.monotonic(), LEAST_S, False
    while True:
        item = subscription.hear(each_s)
        seconds = time.monotonic() - heard_s
        if item is None:
            if not silent and seconds >= patience_s:
                silent = True
                yield Silence(seconds, over=False)
            yield None
            continue
        if silent:
            silent = False
            yield Silence(seconds, over=True)
        heard_s = time.monotonic()
        if isinstance(item, Hello):
            patience_s = max(LEAST_S, INTERVALS * item.status_interval_s)
        yield item
