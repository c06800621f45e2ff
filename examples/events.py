"""Prints events as they begin and end, in an asyncio program.

python examples/events.py ENDPOINT [SERVER_KEY_FILE SECRET_KEY_FILE]
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from perceiverd.wire import Curve, Event, Gap, Restarted, Stale, subscribe


async def main(endpoint: str, *key_files: str) -> None:
    curve = Curve.read(*map(Path, key_files)) if key_files else None
    with subscribe(endpoint, ["events/"], curve=curve) as subscription:
        async for item in subscription:
            match item:
                case Event(kind="begin"):  # item.repeated: it began before this program subscribed
                    print(f"{item.stream}: {item.name} since {item.start:%H:%M:%S}", flush=True)
                case Event(kind="end"):
                    print(f"{item.stream}: {item.name} ended after {item.duration_s:.1f} s", flush=True)
                case Gap():
                    print(f"{item.missed} messages of {item.topic} were lost", flush=True)
                case Restarted():
                    print("the daemon was restarted: all open events are over", flush=True)
                case Stale(over=False):
                    print(f"nothing received for {item.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
