"""A picture, and a server on this machine that serves it in good and bad ways."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import PIL.Image
import pytest

_FILE = BytesIO()
PIL.Image.linear_gradient("L").resize((60, 40)).convert("RGB").save(_FILE, "PNG")


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        answers = {"/ok.png": self._ok, "/moved.png": self._moved, "/loop.png": self._loop, "/huge.png": self._huge}
        answers.get(self.path, self._missing)()

    def _ok(self) -> None:
        self._head(200)
        self.wfile.write(_FILE.getvalue())

    def _moved(self) -> None:
        self._head(302, "/ok.png")

    def _loop(self) -> None:
        self._head(302, "/loop.png")

    def _missing(self) -> None:
        self._head(404)

    def _huge(self) -> None:
        self._head(200)
        try:
            while True:
                self.wfile.write(bytes(2**20))
        except OSError:
            pass  # The client has seen enough.

    def _head(self, status: int, location: str | None = None) -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def png() -> bytes:
    """A picture of 60 x 40 pixels as a PNG file."""
    return _FILE.getvalue()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A server for ``/ok.png``, ``/moved.png``, ``/loop.png``, ``/huge.png``; it keeps the paths it was asked for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.paths = []  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def site(served: ThreadingHTTPServer) -> str:
    """The server's address."""
    return f"http://127.0.0.1:{served.server_port}"
