"""How long the page's questions take on a synthetic year: `python -m tests.support.web_year FOLDER`.

The folder has the year that `tests.support.history_year` wrote. Times are those of a browser on the same machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.support.pages import Browser, served

DAY, WEEK = "2026-10-29", "after=2026-10-25T00:00:00Z"
REQUESTS = {
    "newest 100 events": "events",
    "Animal and its descendants": "events?label=Animal",
    "one stream, score >= 0.9": "events?stream=house/cam7&least_peak=0.9",
    "an event with its scores": "events/1990000",
    "a day of 30 streams": f"day?date={DAY}&zone=Europe/Berlin",
    "heat map of a day": f"streams/house/cam7/heatmap?start={DAY}T00:00:00Z&end={DAY}T23:59:00Z",
    "heat map of an hour": f"streams/house/cam7/heatmap?start={DAY}T12:00:00Z&end={DAY}T13:00:00Z",
    "labels": "labels?q=bark",
    "statistics of a week": f"statistics?{WEEK}&zone=Europe/Berlin",
    "statistics of a label": "statistics?label=Dog&zone=Europe/Berlin",
    "statistics of the year": "statistics?zone=Europe/Berlin",
}


def timed(browser: Browser, path: str, rounds: int) -> tuple[float, int]:
    """The shortest time of some requests in milliseconds, and the bytes of the answer."""
    took = []
    for _ in range(rounds):
        before_s = time.perf_counter()
        answer = browser.get(f"/api/1/{path}")
        took.append(time.perf_counter() - before_s)
        assert answer.status == 200, answer.body
    return 1000 * min(took), len(answer.body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), "--endpoint", "house=ipc:///nowhere", "--history", str(arguments.folder)) as page,
    ):
        for name, path in REQUESTS.items():
            took_ms, size = timed(page.browser(), path, arguments.rounds)
            print(f"{name:30} {took_ms:8.1f} ms {size / 1000:8.1f} kB", flush=True)
    print(f"load {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
