"""Events as they begin and end, beside whatever else an asyncio program does.

python examples/events.py ENDPOINT [SERVER_KEY_FILE SECRET_KEY_FILE]
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from perceiverd.wire.client import Gap, Restarted, Stale, curve_of, subscribe
from perceiverd.wire.messages import Event


async def main(endpoint: str, server_key: Path | None = None, secret_key: Path | None = None) -> None:
    with subscribe(endpoint, ["events/"], curve=curve_of(server_key, secret_key)) as subscription:
        async for item in subscription:
            match item:
                case Event(kind="begin"):  # whoever comes late is told, too, of what began before: item.repeated
                    print(f"{item.stream}: {item.name} since {item.start:%H:%M:%S}", flush=True)
                case Event(kind="end"):
                    print(f"{item.stream}: {item.name} is over after {item.duration_s:.1f} s", flush=True)
                case Gap():
                    print(f"{item.missed} messages of {item.topic} got lost", flush=True)
                case Restarted():
                    print("another daemon: what was open is over", flush=True)
                case Stale():
                    print(f"nothing heard for {item.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], *map(Path, sys.argv[2:])))
