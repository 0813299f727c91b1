"""The hub is asked once whether it has a repository, and what it has is loaded."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
import torch
import transformers.utils.hub

from forgetmenot.errors import UserError
from forgetmenot.hub import answers
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import ModelSettings
from forgetmenot.tasks.tables import read_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", str(tmp_path / "cache"), raising=False)


def at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    # made once, perhaps by an earlier test, and keeps what the address was then
    monkeypatch.setattr(transformers.utils.hub.hf_api(), "endpoint", address)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )


@pytest.fixture
def asked(tiny_llama: Path, empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub with the one repository owner/tiny; what it was asked for."""
    paths: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_HEAD()

        def do_HEAD(self) -> None:
            paths.append(self.path)
            repository, _, file = self.path.lstrip("/").partition("/resolve/main/")
            there = tiny_llama / file if file else None
            self.send_response(200 if repository == "owner/tiny" and there and there.is_file() else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            body = b""
            if repository == "owner/tiny" and there and there.is_file():
                body = there.read_bytes()
                self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            else:
                self.send_header(
                    "X-Error-Code", "EntryNotFound" if "owner/tiny" in self.path else "RepoNotFound"
                )
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield paths
    server.shutdown()


@pytest.fixture
def nowhere(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub where nobody listens."""
    at("http://127.0.0.1:9", monkeypatch)


def load(name: str) -> str:
    found = load_model(ModelSettings(name=name), trainable=False, device=torch.device("cpu"))
    return found.revision


def test_a_model_of_the_hub_is_loaded_and_later_read_from_the_cache(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert load("owner/tiny") == COMMIT
    at("http://127.0.0.1:9", monkeypatch)
    capfd.readouterr()
    assert load("owner/tiny") == COMMIT
    assert "Retrying" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["nosuch", "owner/tinny"])
def test_a_repository_that_there_is_not_is_asked_for_once(name: str, asked: list[str]) -> None:
    with pytest.raises(UserError, match=rf"'{name}' could not be loaded: .*the hub has no such repository"):
        load(name)
    assert asked == [f"/{name}/resolve/main/config.json"]


def test_a_repository_without_the_file_is_a_repository(asked: list[str]) -> None:
    assert answers("owner/tiny", "README.md", None)


@pytest.mark.usefixtures("nowhere")
def test_a_hub_that_does_not_answer_is_not_asked_again(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"could not be loaded: .*http://127.0.0.1:9 cannot be reached: "):
        load("owner/tiny")
    with pytest.raises(UserError, match=r"owner/rows could not .*: http://127.0.0.1:9 cannot be reached: "):
        read_hub("owner/rows", None, None, "train")
    assert "Retrying" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("nowhere")
def test_a_name_that_is_a_path_and_a_hub_that_is_shut_out_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="a hub id is written owner/name"):
        load("models/of/mine")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="not in the cache, and HF_HUB_OFFLINE keeps the hub out"):
        load("owner/tiny")
