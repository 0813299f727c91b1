"""The server of a live page: pages that are made when a browser on this machine asks for them.

A page asks again by itself, by a `refresh` in its head, so that it needs no script, and its content policy
stays that of the report. Other machines are not answered, nor is a page of theirs that names this one as its
own (DNS rebinding): the address must be that of this machine.
"""

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from forgetmenot.errors import UserError
from forgetmenot.report.html import Now, template

HOST = "127.0.0.1"
EVERY = 5
"""Seconds between two looks of a browser."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

Make = Callable[[str, bool], str | None]
"""What makes the page of a path, as "/" or "/runs/a/"; the flag holds it still. None where there is none."""


class LivePage:
    """A page that is served until it is closed, or its process ends.

    Attributes:
        address: Where a browser on this machine finds it.
    """

    def __init__(self, make: Make, port: int | None = None) -> None:
        """Begin to serve.

        Args:
            make: What makes the pages.
            port: The port of this machine; None for one that is free.

        Raises:
            UserError: The port cannot be had.
        """
        if port is not None and not 1 <= port <= 65535:
            raise UserError(f"--port {port}: ports are 1 to 65535; leave it out for one that is free.")
        try:
            self._server = _Server(make, port or 0)
        except OSError as error:
            raise UserError(
                f"--port {port}: it cannot be had ({error.strerror}); give another, or leave it out for one "
                "that is free."
            ) from error
        self.address = f"http://{HOST}:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Wait until the page is closed, or something interrupts this."""
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def __repr__(self) -> str:
        """Where it is."""
        return f"LivePage({self.address!r})"

    def _repr_html_(self) -> str:
        """A link, for a notebook."""
        return f'<a href="{self.address}">{self.address}</a>'


def plain_page(title: str, now: Now, **more: Any) -> str:
    """A page without a report: what is waited for, what is wrong, or a list of runs.

    Args:
        title: Its heading.
        now: What it says.
        more: `runs`, of which each has `link`, `varies` and `stands`; the `keys` that vary; the address of
            a `report` on all of them.
    """
    empty: dict[str, Any] = {"runs": [], "keys": [], "report": None}
    return str(template("live.html.jinja").render(title=title, now=now, **{**empty, **more}))


class _Server(ThreadingHTTPServer):
    """Makes one page at a time: two tabs cost no more memory than one."""

    daemon_threads = True

    def __init__(self, make: Make, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.make, self.one_at_a_time = make, threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Answer with a page."""
        asked = urlsplit(self.path)
        if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
            self._answer(421, plain_page("Not here", Now(["This page is for a browser on this machine."])))
            return
        with self.server.one_at_a_time:
            page = self.server.make(unquote(asked.path), asked.query == "hold")
        if page is None:
            self._answer(404, plain_page("Not found", Now([f"There is no page {asked.path}."])))
        else:
            self._answer(200, page)

    def do_HEAD(self) -> None:
        """Answer without the page itself."""
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""

    def _answer(self, status: int, page: str) -> None:
        content = page.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", POLICY),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
