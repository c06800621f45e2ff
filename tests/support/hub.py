"""A Hugging Face hub on loopback, and the program that imports models from it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPOSITORY = "someone/perceiver"


def run_program(home: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `perceiverd ARGUMENTS` with imported models and the hub's cache in `home`."""
    return subprocess.run(
        [sys.executable, "-m", "perceiverd", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_DATA_HOME": str(home), "HF_HOME": str(home / "hf")} | environment,
    )


def import_model(home: Path, endpoint: str, repository: str = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run `perceiverd models import hf:REPOSITORY` with this hub."""
    return run_program(home, "models", "import", f"hf:{repository}", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")


def imported(home: Path) -> list[str]:
    """Names of what is in the folder of imported models."""
    return [path.name for path in (home / "perceiverd" / "models").glob("*")]


@contextmanager
def hub_of(folder: Path, *, cut: int | None = None, sha256: str | None = None) -> Iterator[str]:
    """The endpoint of a hub that has this folder as a repository; its answers are like those of the real hub.

    `cut`: close the connection after so many bytes of weights, each time. `sha256`: give this one for the weights.
    """

    class Handler(_Handler):
        pass

    Handler.folder, Handler.cut, Handler.sha256 = folder, cut, sha256
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    cut: int | None
    sha256: str | None

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.folder / self.path.rpartition("/")[2].partition("?")[0]
        if f"/{REPOSITORY}/resolve/main/" not in self.path or not path.is_file():
            missing = "EntryNotFound" if REPOSITORY in self.path else "RepoNotFound"
            self.reply(404, {"X-Error-Code": missing, "Content-Length": "0"})
            return
        data, weights = path.read_bytes(), path.suffix != ".json"
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.reply(206 if first else 200, self.headers_for(data, first, weights=weights))
        if body and weights and self.cut is not None:
            self.wfile.write(data[first : first + self.cut])
            self.close_connection = True
        elif body:
            self.wfile.write(data[first:])

    def headers_for(self, data: bytes, first: int, *, weights: bool) -> dict[str, str]:
        digest = hashlib.sha256(data).hexdigest()
        tag = self.sha256 if self.sha256 and weights else digest
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(data) - first)}
        if weights:  # the real hub offers its faster protocol for all large files
            headers |= {"X-Xet-Hash": digest, "Link": '<http://127.0.0.1:1/xet>; rel="xet-auth"'}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        return headers

    def reply(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
