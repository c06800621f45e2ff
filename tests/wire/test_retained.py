"""Which messages are kept for new subscribers."""

from __future__ import annotations

import msgspec

from perceiverd.wire.retained import cache_key, clears
from tests.wire.test_messages import EVENT, EXPLAIN, HELLO, SCORES, STATUS


def test_last_values_are_kept_until_they_are_replaced() -> None:
    """The hello, statuses and open events are kept, an event by its id until it ends; scores and reasons are not."""
    assert cache_key(HELLO) == ("hello/", "")
    assert cache_key(STATUS) == ("status/door/", "")
    assert cache_key(EVENT) == ("events/door/", "74-1500")
    assert cache_key(SCORES) is cache_key(EXPLAIN) is None
    end = msgspec.structs.replace(EVENT, kind="end", seq=9)
    assert cache_key(end) == cache_key(EVENT)
    assert [clears(each) for each in (EVENT, end, HELLO, STATUS, SCORES)] == [False, True, False, False, False]
