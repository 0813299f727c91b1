"""An exported model on a hub, of which a server on this machine plays the part."""

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from forgetmenot.errors import UserError
from forgetmenot.runs.api import Run
from forgetmenot.runs.push import check_push, push
from tests.running import Answers

TOKEN = "hf_of_a_test"


class Hub(ThreadingHTTPServer):
    """The endpoints that huggingface_hub calls to make a repository and to put files into it.

    Attributes:
        there: Repository to what it holds: path to content.
        private: Whether each is.
        asked: The method and path of each request.
        full: Whether it takes no commit.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.there: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.full = False
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Requests(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None: ...

    def _answer(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        body = self._body()
        hub.asked.append(f"{self.command} {path}")
        if path.startswith("/large/"):
            hub.large[path.removeprefix("/large/")] = body
            return self._send(200, {})
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if path == "/api/whoami-v2":
            return self._send(200 if known else 401, {"name": "owner", "error": "Invalid user token."})
        if path == "/api/validate-yaml":
            return self._send(200, {"warnings": [], "errors": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] != "owner" or not known:
                return self._send(403, {"error": "You don't have the rights to create a model there"})
            if name in hub.there:
                return self._send(409, {"url": f"{hub.address}/{name}", "error": "You already created it"})
            hub.there[name] = {".gitattributes": b""}
            hub.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return self._send(200, {"url": f"{hub.address}/{name}"})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.address}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._send(200, {"transfer": "basic", "objects": objects})
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if name not in hub.there or (hub.private[name] and not known):
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if path == f"/api/models/{name}":
            siblings = [{"rfilename": file} for file in hub.there[name]]
            private = hub.private[name]
            return self._send(200, {"id": name, "sha": "0" * 40, "private": private, "siblings": siblings})
        if path == f"/api/models/{name}/preupload/main":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._send(200, {"files": files})
        if path == f"/api/models/{name}/commit/main":
            if hub.full:
                return self._send(413, {"error": "Storage limit reached"})
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.there[name][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.there[name][value["path"]] = hub.large[value["oid"]]
            return self._send(
                200, {"commitUrl": f"{hub.address}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40}
            )
        raise AssertionError(self.path)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _send(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        answer = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at(server.address, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


def at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)


@pytest.mark.parametrize("private", [False, True])
def test_what_is_exported_is_on_the_hub_and_loads(
    finished: Run, hub: Hub, tmp_path: Path, answers_alone: Answers, private: bool
) -> None:
    said = finished.export(tmp_path / "out", push_to_hub="owner/tuned", private=private)
    assert said.endswith(f" It is at {hub.address}/owner/tuned.")
    assert hub.private == {"owner/tuned": private}
    there = hub.there["owner/tuned"]
    written = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert {name: content for name, content in there.items() if name != ".gitattributes"} == written
    assert hashlib.sha256(there["model.safetensors"]).hexdigest() in hub.large
    card = there["README.md"].decode()
    assert 'AutoModelForCausalLM.from_pretrained("owner/tuned")' in card
    assert "stage 03-size" in card  # the last
    got = tmp_path / "got"
    got.mkdir()
    for name, content in there.items():
        (got / name).write_bytes(content)
    answers_alone(got, finished, 3)


def test_one_that_is_there_and_empty_is_filled(hub: Hub, tmp_path: Path) -> None:
    """As after an upload that was cut off before its commit."""
    hub.there["owner/tuned"], hub.private["owner/tuned"] = {".gitattributes": b""}, False
    (tmp_path / "config.json").write_text("{}")
    check_push("owner/tuned", private=False)
    assert push(tmp_path, "owner/tuned", private=False) == f"{hub.address}/owner/tuned"
    assert hub.there["owner/tuned"]["config.json"] == b"{}"
    with pytest.raises(UserError, match=r"owner/tuned: it is there already, and nothing is written over"):
        check_push("owner/tuned", private=False)


def test_what_was_to_be_private_is_never_put_where_others_see_it(hub: Hub) -> None:
    hub.there["owner/tuned"], hub.private["owner/tuned"] = {".gitattributes": b""}, False
    with pytest.raises(UserError, match=r"it is there already, and is public"):
        check_push("owner/tuned", private=True)


def test_what_is_wrong_is_said_before_anything_is_exported(
    finished: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def refused(repository: str) -> str:
        with pytest.raises(UserError) as error:
            finished.export(out, push_to_hub=repository)
        assert not out.exists()
        assert "\n" not in str(error.value)
        return str(error.value).partition(f"{repository}: ")[2]

    assert refused("tuned") == "a hub id is written owner/name."
    hub.there["owner/old"], hub.private["owner/old"] = {"config.json": b"{}"}, False
    assert refused("owner/old") == "it is there already, and nothing is written over; give another name."
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    assert refused("owner/tuned").startswith("the hub does not know the token; run `hf auth login`")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    asked = len(hub.asked)
    assert refused("owner/tuned").startswith("no token of the hub is known here; run `hf auth login`")
    assert len(hub.asked) == asked
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    at("http://127.0.0.1:9", monkeypatch)
    assert refused("owner/tuned").startswith("http://127.0.0.1:9 cannot be reached, or broke off: ")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refused("owner/tuned") == "HF_HUB_OFFLINE keeps the hub out; unset it."
    with pytest.raises(UserError, match=r"--private: .* say --push-to-hub OWNER/NAME as well"):
        finished.export(out, private=True)


def test_a_hub_that_does_not_take_it_leaves_the_export_and_says_how_to_try_again(
    hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    hub.full = True
    with pytest.raises(UserError) as error:
        push(tmp_path, "owner/tuned", private=True)
    assert "the hub answered" in str(error.value)
    assert str(error.value).endswith(
        f"The export is whole in {tmp_path}; push it by `hf upload owner/tuned {tmp_path} --private`."
    )
    with pytest.raises(UserError, match="the token may not write there"):
        push(tmp_path, "others/tuned", private=False)


def test_a_hub_that_is_silent_is_not_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections, and answers none
    monkeypatch.setattr("forgetmenot.runs.push.PATIENCE", 0.5)
    at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
    with silent, pytest.raises(UserError, match="cannot be reached, or broke off"):
        check_push("owner/tuned", private=False)


def test_the_command_goes_by_hf_endpoint(finished: Run, hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "forgetmenot", "export", str(finished.path), str(tmp_path / "out")]
    command += ["--push-to-hub", "owner/tuned", "--private"]
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **settings}
    )
    assert ended.returncode == 0, ended.stderr
    assert f"It is at {hub.address}/owner/tuned." in ended.stdout
    assert hub.private == {"owner/tuned": True}
    assert {"README.md", "config.json", "model.safetensors"} <= hub.there["owner/tuned"].keys()
