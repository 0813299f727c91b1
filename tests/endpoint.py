"""A small HTTP server that speaks OpenAI's protocol, for tests of judges, teachers, and sides of a check."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Scripted = tuple[int, str] | tuple[int, str, dict[str, str]] | None


def completion(content: Any) -> dict[str, Any]:
    """The body of an answer."""
    message = {"role": "assistant", "content": content}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}


@dataclass
class Request:
    """What was sent."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Server:
    """Answers every request by `reply`, but the first ones by `script` and after `delays`.

    Attributes:
        reply: (path, body) to the answer as plain data, or to (status, text).
        answer: The text of a chat's answer, where `reply` is left as it is.
        script: (status, body) or (status, body, headers) of the next answers; None hangs up.
        delays: Seconds before the next answers.
        requests: What was asked, in order.
        most_at_a_time: How many requests were ever under way together.
    """

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], str] = lambda body: (
            f"answer to: {body['messages'][-1]['content']}"
        )
        self.reply: Callable[[str, dict[str, Any]], Any] = lambda path, body: completion(self.answer(body))
        self.script: list[Scripted] = []
        self.delays: list[float] = []
        self.requests: list[Request] = []
        self.most_at_a_time = self._under_way = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def stop(self) -> None:
        self._stopped.set()
        self._http.shutdown()
        self._http.server_close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (`self` is the handler's)
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                with server._lock:
                    server.requests.append(Request(self.path, dict(self.headers), body))
                    server._under_way += 1
                    server.most_at_a_time = max(server.most_at_a_time, server._under_way)
                    delay = server.delays.pop(0) if server.delays else 0.0
                    scripted = server.script.pop(0) if server.script else ()
                try:
                    server._stopped.wait(delay)
                    if scripted == ():
                        found = server.reply(self.path, body)
                        scripted = found if isinstance(found, tuple) else (200, json.dumps(found))
                finally:
                    with server._lock:  # before the answer is out: whoever reads it may ask again at once
                        server._under_way -= 1
                with suppress(OSError):  # the client has hung up
                    self._send(scripted)

            def _send(self, scripted: Any) -> None:
                if scripted is None:
                    self.close_connection = True
                    return
                status, text, *headers = scripted
                self.send_response(status)
                for name, value in (headers[0] if headers else {}).items():
                    self.send_header(name, value)
                content = text.encode()
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@contextmanager
def serving() -> Iterator[Server]:
    """A server that ends with the block."""
    server = Server()
    try:
        yield server
    finally:
        server.stop()
