"""The client against a small server that speaks the protocol, and misbehaves as real ones do."""

import json
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import ValidationError

from forgetmenot.errors import UserError, validation_sentence
from forgetmenot.probes import make_probe
from forgetmenot.synthesis.endpoint import Endpoint, EndpointSettings
from tests.endpoint import Server, completion

QUESTION = [{"role": "user", "content": "Which is better?"}]


def endpoint(server: Server, **settings: Any) -> Endpoint:
    return Endpoint(EndpointSettings(base_url=server.url, model="judge", **settings), first_wait=0.001)


def test_what_is_sent_is_the_protocol_and_the_answer_is_its_text(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret\n")
    answer = endpoint(server, api_key_env="MY_KEY").complete(QUESTION, temperature=None, seed=3)
    assert answer == "answer to: Which is better?"
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == "Bearer sk-secret"
    assert request.body == {"model": "judge", "messages": QUESTION, "max_tokens": 1024, "seed": 3}


def test_a_key_that_is_not_set_is_said_before_anything_is_sent(server: Server) -> None:
    with pytest.raises(UserError, match="'NO_SUCH_KEY' is not set"):
        endpoint(server, api_key_env="NO_SUCH_KEY")


ADDRESSES = (
    *("localhost:8000/v1", "http://me:s3cret@host/v1", "http://h/v1?key=s3cret", "x", "http://h/v1#s3cret"),
    *(
        "http://h:99999/v1",
        "http://h:0/v1",
        "http://h:port/v1",
        "http://h\n/v1",
        "http://h /v1",
        "http:///v1",
    ),
    *("http://me:s3cret@h:port/v1", "http://h/v1?", "http://h/\ud800", "http://[::1/v1", "http://h/v1#"),
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(address: str) -> None:
    settings = {"base_url": address, "model": "judge"}
    with pytest.raises(ValidationError) as refused:
        EndpointSettings.model_validate(settings)
    said = validation_sentence(refused.value, EndpointSettings, "judge")
    assert said.startswith("judge.base_url: ")
    assert "s3cret" not in said + str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": "s3cret"},
        {"headers": {"Authorization": "Bearer s3cret"}},
        {"api_key_env": "sk-s3cret"},
        {"base_url": "http://me:s3cret@host/v1", "model": None},
    ],
)
def test_a_secret_where_none_belongs_is_not_repeated(settings: dict[str, Any]) -> None:
    asked = {"name": "safety", "judge": {"base_url": "http://host/v1", "model": "judge", **settings}}
    with pytest.raises(UserError) as refused:
        make_probe("safety", {"judge": asked["judge"]}, None)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("key", ["one\ntwo", "schlüssel", "one two"])
def test_what_is_no_key_is_not_sent(server: Server, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UserError, match="'MY_KEY' holds is no key") as refused:
        endpoint(server, api_key_env="MY_KEY")
    assert key not in str(refused.value)


def test_an_answer_is_read_up_to_a_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetmenot.synthesis.endpoint.LONGEST_REPLY", 10_000)
    server.answer = lambda _: "x" * 20_000
    with pytest.raises(UserError, match=r"more than 10,000 bytes"):
        endpoint(server).complete(QUESTION)
    assert len(server.requests) == 1


def test_an_answer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(listening: socket.socket) -> None:
        with suppress(OSError):  # the client hangs up
            connection, _ = listening.accept()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)

    monkeypatch.setattr("forgetmenot.synthesis.endpoint.TIMES_OUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip, args=(listening,), daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        settings = EndpointSettings(base_url=address, model="judge", timeout=0.3, retries=0)
        with pytest.raises(UserError, match=r"did not end its answer within 0\.3 s"):
            Endpoint(settings).complete(QUESTION)


def test_half_a_character_in_an_answer_does_no_harm(server: Server) -> None:
    server.script = [(200, json.dumps(completion("a \ud800 b \U0001f600")))]
    assert endpoint(server).complete(QUESTION) == "a ? b \U0001f600"


def test_a_deep_answer_is_none(server: Server) -> None:
    server.script = [(200, "[" * 100_000)]
    assert endpoint(server).complete(QUESTION) == "answer to: Which is better?"


@pytest.mark.parametrize(
    "failures",
    [
        [(500, "oops")],
        [(429, '{"error": {"message": "slow down"}}'), (503, "")],
        [(200, "<html>a proxy</html>"), (200, "{}"), (200, '{"choices": []}'), (200, '{"choices": [7]}')],
        [(200, json.dumps(completion(["parts"])))],
    ],
)
def test_what_passes_is_asked_again(server: Server, failures: list[tuple[int, str]]) -> None:
    server.script = list(failures)
    assert endpoint(server).complete(QUESTION) == "answer to: Which is better?"
    assert len(server.requests) == len(failures) + 1


def test_a_broken_connection_is_asked_again(server: Server) -> None:
    server.script = [None]  # hangs up without a word
    assert endpoint(server).complete(QUESTION).startswith("answer to")
    assert len(server.requests) == 2


def test_a_time_out_is_asked_again_and_said_when_it_stays(server: Server) -> None:
    server.delays = [5.0]
    assert endpoint(server, timeout=0.1).complete(QUESTION).startswith("answer to")
    server.delays = [5.0, 5.0]
    with pytest.raises(UserError, match=r"did not answer within 0\.1 s, asked 2 times"):
        endpoint(server, timeout=0.1, retries=1).complete(QUESTION)


def test_a_rate_limit_is_waited_out_as_long_as_it_asks(server: Server) -> None:
    server.script = [(429, "", {"Retry-After": "0.2"})]
    began = time.monotonic()
    endpoint(server).complete(QUESTION)
    assert time.monotonic() - began >= 0.2
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
    server.script = [(429, "", {"Retry-After": past}), (503, "", {"Retry-After": "soon"})]
    endpoint(server).complete(QUESTION)
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    server.script = [(429, "", {"Retry-After": later})]
    with pytest.raises(UserError, match=r"status 429 and asks to wait 3[56]\d\d s"):
        endpoint(server).complete(QUESTION)


def test_a_refusal_is_said_at_once_with_its_reason_and_without_the_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    server.script = [(401, '{"error": {"message": "Incorrect key: sk-secret."}}')]
    with pytest.raises(UserError, match=r"status 401 \(Incorrect key: …\)") as caught:
        endpoint(server, api_key_env="MY_KEY").complete(QUESTION)
    assert "sk-secret" not in str(caught.value)
    assert len(server.requests) == 1


def test_a_server_that_stays_broken_is_said_with_the_number_of_attempts(server: Server) -> None:
    server.script = [(500, "out of memory")] * 3
    with pytest.raises(UserError, match=r"status 500 \(out of memory\), asked 3 times"):
        endpoint(server, retries=2).complete(QUESTION)


def test_nobody_at_the_address_is_said(server: Server) -> None:
    server.stop()
    with pytest.raises(UserError, match=r"cannot be reached .*, asked once"):
        endpoint(server, retries=0).complete(QUESTION)


def test_an_answer_without_content_is_empty(server: Server) -> None:
    server.script = [(200, json.dumps(completion(None)))]
    assert endpoint(server).complete(QUESTION) == ""


def test_many_are_asked_together_but_no_more_than_allowed(server: Server) -> None:
    server.delays = [0.02] * 12
    asked = [[{"role": "user", "content": f"question {k}"}] for k in range(12)]
    found = dict(endpoint(server, concurrency=3).complete_all(asked))
    assert found == {k: f"answer to: question {k}" for k in range(12)}
    assert 1 < server.most_at_a_time <= 3


def test_what_was_answered_beside_a_failure_is_given_before_it_is_raised(server: Server) -> None:
    gate = threading.Event()

    def answer(body: dict[str, Any]) -> str:
        if body["messages"][0]["content"] == "1":
            gate.wait(5)
            return "late, but answered"
        return "fine"

    server.answer = answer
    server.script = [(400, "no such model")]
    asked = [[{"role": "user", "content": str(k)}] for k in range(2)]
    threading.Timer(0.2, gate.set).start()
    kept: dict[int, str] = {}
    with pytest.raises(UserError, match="no such model"):
        kept.update(endpoint(server, concurrency=2).complete_all(asked))
    assert list(kept.values()) in (["late, but answered"], ["fine"])


def test_a_caller_who_leaves_stops_what_was_not_begun(server: Server) -> None:
    server.delays = [0.05] * 50
    asked = [[{"role": "user", "content": str(k)}] for k in range(50)]
    answers = endpoint(server, concurrency=2).complete_all(asked)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert len(server.requests) < 10
