"""Every log event and its meaning. Programs filter logs by these names, so a settled name does not change.

`docs/reference/log-events.md` is generated from this table and from the calls of `logs.log_event`.
"""

from __future__ import annotations

from collections.abc import Mapping

EVENTS: Mapping[str, str] = {
    "notify-failed": "systemd's notification socket refused a message. Logged once until one gets through again.",
}
