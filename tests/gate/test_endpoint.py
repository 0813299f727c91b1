"""An endpoint as a side of a check: it answers as the same model does on this machine, or says why not."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.evaluation.settings import Asking, EvaluationSettings
from forgetmenot.gate import endpoint as module
from forgetmenot.gate.by_text import asked_alike
from forgetmenot.gate.check import Check, check
from forgetmenot.gate.endpoint import Likelihoods, agreement
from forgetmenot.tasks import Task, load_tasks
from tests.endpoint import Server, serving
from tests.gate.serving import TinyModel


@pytest.fixture
def tiny(tiny_llama: Path) -> TinyModel:
    return TinyModel(tiny_llama)


@pytest.fixture
def server(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as there:
        there.reply = tiny
        yield there


@pytest.fixture
def tasks(tiny_tasks: Mapping[str, Path]) -> list[str]:
    return [str(tiny_tasks["animal"]), str(tiny_tasks["size"])]


Both = Callable[..., tuple[Check, dict[str, Any], dict[str, Any]]]


@pytest.fixture
def both(tmp_path: Path, tasks: list[str], tiny_llama: Path, server: Server) -> Both:
    """The check of the local model against the endpoint, and what each of them answered as a base."""

    def both(**settings: Any) -> tuple[Check, dict[str, Any], dict[str, Any]]:
        answers = []
        for name, sides in (("served", (server.url, tiny_llama)), ("local", (tiny_llama, server.url))):
            kept = tmp_path / f"{name}.json"
            named = {"tasks": tasks, "limit": 9, "output": tmp_path / name, "baseline": kept, **settings}
            found = check(*map(str, sides), **named)
            answers.append(json.loads(kept.read_text())["answers"])
        return found, answers[1], answers[0]

    return both


def assert_alike(local: Mapping[str, Any], served: Mapping[str, Any]) -> None:
    assert local.keys() == served.keys()
    for task, one in local.items():
        other = served[task]
        for key in ("ids", "gold", "predicted", "generated", "tokens", "prompt_text", "cluster", "labels"):
            assert one[key] == other[key], (task, key)
        for row, again in zip(one["log_likelihoods"], other["log_likelihoods"], strict=True):
            assert row == (None if again is None else pytest.approx(again, abs=1e-4))


def test_likelihoods_are_the_local_models(both: Both) -> None:
    found, local, served = both(margin=0.3, limit=None)
    assert_alike(local, served)
    assert [len(row) for row in local["size"]["log_likelihoods"]] == [3] * 24
    assert found.status == 0
    assert all(one["forgotten"] + one["gained"] == 0 for one in found.content["verdicts"].values())
    assert found.content["tasks"]["animal"]["scoring"] == "likelihood"
    (tuned,) = found.content["tuned"]
    assert (tuned["kind"], tuned["title"]) == ("endpoint", "tiny")
    assert tuned["weights"].startswith("unknown")
    assert tuned["served"]["system_fingerprint"] == "fp-1"
    assert "the hash of its weights is unknown" in found.content["notes"][0]
    assert "the hash of its weights is unknown" in (found.path / "check.md").read_text()
    assert "the hash of its weights is unknown" in (found.path / "check.html").read_text()


def test_tokens_are_told_apart_by_their_texts_too(both: Both, tiny: TinyModel) -> None:
    tiny.by_id = False
    _, local, served = both()
    assert_alike(local, served)


def test_a_token_over_the_end_of_the_prompt_counts_as_the_local_encoder_counts_it(
    both: Both, make_task: Callable[..., Path], tiny_tokenizer: Any
) -> None:
    prompt = {"template": "Word: {{ word }}\nKind: b", "choices": {"cat": "ig", "dog": "lue"}}
    rows = [{"word": f"kitten {k}", "kind": ("cat", "dog")[k % 2]} for k in range(12)]
    task = make_task("merged", [], rows, label="kind", prompts={"default": {**prompt, "separator": ""}})
    alone, *wholes = tiny_tokenizer([f"Kind: b{end}" for end in ("", "ig", "lue")])["input_ids"]
    assert all(whole[: len(alone)] != alone for whole in wholes)  # a token does reach over
    _, local, served = both(tasks=[str(task)])
    assert_alike(local, served)


@pytest.mark.parametrize("echoes", ["refused", "ignored"])
def test_without_log_probabilities_both_sides_write(both: Both, tiny: TinyModel, echoes: str) -> None:
    tiny.echoes = echoes
    found, local, served = both()
    assert_alike(local, served)
    assert all(text is not None for text in served["animal"]["generated"])
    assert found.content["tasks"]["animal"]["scoring"] == "generation"
    assert any(
        "written answers (scoring: generation): the server of org/tiny gives no log-prob" in note
        for note in found.content["notes"]
    )


def test_ollamas_template_is_said(server: Server, tiny: TinyModel, tasks: list[str], tmp_path: Path) -> None:
    tiny.echoes, tiny.fingerprint = "ignored", "fp_ollama"
    settings: dict[str, Any] = {"tasks": tasks[:1], "limit": 2, "output": tmp_path / "check"}
    plain = check(server.url, server.url, **settings).content["notes"]
    assert any("serve the model with TEMPLATE {{ .Prompt }}." in note for note in plain)
    chat = check(server.url, server.url, chat=True, **settings).content["notes"]
    assert not any("TEMPLATE" in note for note in chat)


def test_chats_are_written_by_the_servers_template(both: Both, server: Server) -> None:
    found, local, served = both(chat=True)
    assert_alike(local, served)
    assert found.content["tasks"]["animal"]["scoring"] == "generation"
    chats = [one.body for one in server.requests if one.path == "/v1/chat/completions"]
    assert len(chats) > 2 * 18
    assert chats[-1]["messages"][-1]["role"] == "user"
    assert chats[-1]["chat_template_kwargs"] == {"enable_thinking": False}


def free_task(make_task: Callable[..., Path], **settings: Any) -> Path:
    rows = [{"word": f"kitten {k}", "said": f"a cat, number {k}"} for k in range(12)]
    prompts = {"default": {"template": "Word: {{ word }}\nSaid:"}}
    return make_task("free", [], rows, target="said", prompts=prompts, **settings)


def test_free_answers_are_cut_and_read_by_the_tasks_rules(
    both: Both, make_task: Callable[..., Path], server: Server
) -> None:
    generation = {"max_new_tokens": 24, "stop": ["e", "q!"], "extract": ["strip"]}
    free = free_task(make_task, metric="rouge_l", generation=generation)
    _, local, served = both(tasks=[str(free)])
    assert_alike(local, served)
    assert len(set(served["free"]["generated"])) > 1
    assert not any("e" in text for text in served["free"]["generated"])
    body = server.requests[-1].body
    assert (body["stop"], body["max_tokens"], body["temperature"]) == (["e", "q!"], 24, 0.0)


def test_a_conversation_is_put_as_it_is(both: Both, make_task: Callable[..., Path]) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Word: kitten {k}"},
                {"role": "assistant", "content": "a cat"},
            ]
        }
        for k in range(8)
    ]
    path = make_task(
        "talk", [], rows, messages="messages", metric="rouge_l", generation={"max_new_tokens": 12}
    )
    _, local, served = both(tasks=[str(path)])
    assert_alike(local, served)


@pytest.mark.parametrize("head", [False, True])
def test_losses_are_those_of_the_same_tokens(
    server: Server, make_task: Callable[..., Path], tiny: TinyModel, tmp_path: Path, head: bool
) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = tmp_path / "with-head"
    if head:
        eos = tiny.tokenizer.eos_token
        tiny.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{eos} $A", special_tokens=[(eos, tiny.tokenizer.eos_token_id)]
        )
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    reloaded = TinyModel(folder)
    tiny.tokenizer = reloaded.tokenizer
    assert (len(tiny.tokenizer("cat")["input_ids"]) > len(tiny.tokenizer.tokenize("cat"))) == head
    rows = [{"text": f"a line of text, number {k}"} for k in range(12)]
    lines = make_task("lines", [], rows, text="text", metric="loss")
    free = free_task(make_task, metric="loss")
    settings: dict[str, Any] = {"tasks": [str(lines), str(free)]}
    found = check(str(folder), server.url, baseline=tmp_path / "a", output=tmp_path / "1", **settings)
    check(server.url, str(folder), baseline=tmp_path / "b", output=tmp_path / "2", **settings)
    local, served = (json.loads((tmp_path / name).read_text())["answers"] for name in ("a", "b"))
    assert_alike(local, served)
    first = tiny.tokenizer(rows[0]["text"])["input_ids"]
    assert served["lines"]["tokens"][0] == len(first) - 1
    assert not any("tokenizers" in str(one["reason"]) for one in found.content["verdicts"].values())


def test_what_a_server_answers_otherwise_the_second_time_is_its_noise(
    server: Server, tiny: TinyModel, tasks: list[str], tmp_path: Path
) -> None:
    tiny.echoes = "ignored"
    settings: dict[str, Any] = {"tasks": tasks[:1], "limit": 10}
    calm = check(server.url, server.url, output=tmp_path / "calm", **settings)
    assert calm.content["asked_again"]["animal"] == {"n": 10, "different": 0, "flipped": 0}
    asked: list[str] = []

    def moody(path: str, body: Mapping[str, Any]) -> Any:
        answer, prompt = tiny(path, body), str(body.get("prompt"))
        if prompt.startswith("Word"):
            answer["choices"][0]["text"] = " dog" if prompt in asked else " cat"
            asked.append(prompt)
        return answer

    server.reply = moody
    found = check(server.url, server.url, output=tmp_path / "moody", **settings)
    assert found.content["asked_again"]["animal"] == {"n": 10, "different": 10, "flipped": 10}
    assert asked[10:20] == sorted(
        asked[:10], key=lambda prompt: -int(prompt.split()[2])
    )  # one by one, reversed
    assert found.content["verdicts"]["animal"]["n"] == 10


def test_several_are_asked_together(
    server: Server, tiny: TinyModel, tasks: list[str], tmp_path: Path
) -> None:
    server.delays = [0.0] * 3 + [0.05] * 24
    check(server.url, server.url, tasks=tasks[:1], output=tmp_path / "check")
    assert 2 <= server.most_at_a_time <= module.CONCURRENCY


def test_a_baseline_of_an_endpoint_says_so_and_holds_for_the_same_server(
    server: Server, tiny: TinyModel, tiny_llama: Path, tasks: list[str], tmp_path: Path
) -> None:
    kept = tmp_path / "baseline.json"

    def again() -> Check:
        return check(
            server.url, str(tiny_llama), tasks=tasks, baseline=kept, output=tmp_path / "check", margin=0.3
        )

    first = again()
    assert json.loads(kept.read_text())["about"]["weights"].startswith(
        f"unknown: whatever {server.url}#org/tiny"
    )
    before = len(server.requests)
    second = again()  # the time that the server gives is another
    assert len(server.requests) - before == 3  # its models, whether it answers, whether it echoes
    assert second.content["verdicts"] == first.content["verdicts"]
    tiny.entry["root"] = "/another/checkpoint"
    with pytest.raises(UserError, match="made with another weights"):
        again()


def test_a_sequential_check_asks_an_endpoint_until_it_is_decided(
    server: Server, tiny: TinyModel, tiny_llama: Path, make_word_task: Callable[..., Path], tmp_path: Path
) -> None:
    task = make_word_task("animal", 0, 200)
    found = check(
        str(tiny_llama), server.url, tasks=[str(task)], output=tmp_path / "check", margin=0.4, sequential=True
    )
    verdict = found.content["verdicts"]["animal"]
    assert verdict["decision"] == "kept"
    assert verdict["n"] < 200


def test_keys_that_a_server_does_not_know_are_left_out(
    server: Server, tiny: TinyModel, tasks: list[str], tmp_path: Path
) -> None:
    tiny.refuses = {"repetition_penalty", "chat_template_kwargs", "return_tokens_as_token_ids"}
    found = check(server.url, server.url, tasks=tasks[:1], output=tmp_path / "check", limit=4)
    assert found.content["tasks"]["animal"]["scoring"] == "generation"
    assert not tiny.refuses & server.requests[-1].body.keys()


def test_the_key_is_sent_and_written_nowhere(
    server: Server, tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    folder = tmp_path / "check"
    check(server.url, server.url, tasks=tasks[:1], output=folder, limit=4, baseline=folder / "kept.json")
    assert {one.headers["Authorization"] for one in server.requests} == {"Bearer sk-secret"}
    assert not any(b"sk-secret" in file.read_bytes() for file in folder.rglob("*") if file.is_file())


Change = Callable[[Server, TinyModel, dict[str, Any]], None]


def refusing(status: int, path: str = "/v1/completions", said: str = "no") -> Change:
    text = json.dumps({"error": {"message": said}})
    return lambda server, tiny, settings: tiny.status.update({path: (status, text)})


def naming(url: str) -> Change:
    return lambda server, tiny, settings: settings.update(url=url.replace("URL", server.url))


WRONG: dict[str, tuple[Change, str]] = {
    "down": (lambda server, tiny, settings: server.stop(), r"cannot be reached .*See that the server runs"),
    "no such host": (naming("http://nobody.invalid:1/v1"), r"nobody\.invalid.* cannot be reached"),
    "no address": (naming("http://"), "is no address of an endpoint"),
    "password": (naming("http://me:sk-secret@host/v1"), r"at host holds a user, a password or a query"),
    "wrong key": (
        refusing(401, "/v1/models", "bad key"),
        r"401 \(bad key\)\. Put its key into .*OPENAI_API_KEY",
    ),
    "wrong key later": (refusing(403), r"403 \(no\)\. Put its key into .*OPENAI_API_KEY"),
    "no model": (lambda server, tiny, settings: tiny.names.clear(), "serves no model; load one"),
    "two models": (
        lambda server, tiny, settings: tiny.names.append("org/other"),
        r"serves 2 models; name one as .*/v1#NAME: org/tiny, org/other",
    ),
    "unknown model": (naming("URL#org/tony"), r"serves no model 'org/tony'.*org/tiny"),
    "no list": (refusing(404, "/v1/models"), "Where it lists no models, write URL#NAME"),
    "web page": (
        lambda server, tiny, settings: tiny.status.update({"/v1/models": (200, "<html>Welcome</html>")}),
        r"gave a web page, not JSON, asked 2 times\. .*ends in /v1",
    ),
    "web page refused": (
        lambda server, tiny, settings: tiny.status.update({"/v1/models": (404, "<html>Not found</html>")}),
        r"404 \(a web page\)",
    ),
    "cut off": (
        lambda server, tiny, settings: tiny.status.update({"/v1/completions": (200, '{"choices": [{"te')}),
        "gave an answer that does not follow the protocol",
    ),
    "chats alone": (refusing(404), r"It cannot be asked by /completions; ask by --chat"),
    "no chats": (
        lambda server, tiny, settings: (
            settings.update(chat=True)
            or tiny.status.update({"/v1/chat/completions": (400, '{"error": "no template"}')})
        ),
        r"400 \(no template\)\. It cannot be asked by /chat/completions; ask without --chat",
    ),
    "overloaded": (refusing(503, said="loading"), r"status 503 \(loading\), asked 2 times"),
    "thinking": (
        lambda server, tiny, settings: settings.update(chat=True, reply=thoughtful(tiny)),
        "thinks before it answers.*switched off",
    ),
}


def thoughtful(tiny: TinyModel) -> Callable[[str, Mapping[str, Any]], Any]:
    def reply(path: str, body: Mapping[str, Any]) -> Any:
        answer = tiny(path, body)
        if path == "/v1/chat/completions":
            answer["choices"][0]["message"] = {"content": None, "reasoning_content": "Well, "}
        return answer

    return reply


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_an_endpoint_is_one_sentence(
    server: Server, tiny: TinyModel, tasks: list[str], tmp_path: Path, wrong: str
) -> None:
    change, says = WRONG[wrong]
    settings: dict[str, Any] = {"url": server.url, "tasks": tasks[:1], "limit": 4}
    change(server, tiny, settings)
    server.reply = settings.pop("reply", tiny)
    with pytest.raises(UserError, match=says) as refused:
        check(url := settings.pop("url"), url, output=tmp_path / "check", **settings)
    assert "sk-secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_server_that_lists_no_models_is_asked_for_the_named_one(
    server: Server, tiny: TinyModel, tasks: list[str], tmp_path: Path
) -> None:
    tiny.status["/v1/models"] = (404, "")
    url = f"{server.url}#org/tiny"
    found = check(url, url, tasks=tasks[:1], limit=4, output=tmp_path / "check")
    assert found.content["base"]["title"] == "tiny"


def test_tasks_that_an_endpoint_cannot_be_asked(
    server: Server, tiny: TinyModel, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    def refused(path: Path, says: str, **settings: Any) -> None:
        with pytest.raises(UserError, match=says):
            check(server.url, server.url, tasks=[str(path)], output=tmp_path / "check", **settings)

    pair = [{"q": "?", "chosen": "yes", "rejected": "no"}] * 4
    prompt = {"default": {"template": "{{ q }}"}}
    refused(
        make_task("pairs", [], pair, chosen="chosen", rejected="rejected", prompts=prompt), "'pairs' \\(pref"
    )
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "yes"}]
    rows = [{"messages": turns, "tools": tools}] * 4
    talk = {"messages": "messages", "metric": "rouge_l"}
    refused(make_task("tools", [], rows, **talk), "'tools' calls tools")
    lines = make_task("lines", [], [{"text": f"line {k}"} for k in range(4)], text="text", metric="loss")
    free = free_task(make_task, metric="loss")
    refused(
        free,
        "'free' is scored by loss, which takes likelihoods, and an endpoint gives no .* in a chat",
        chat=True,
    )
    tiny.echoes = "ignored"
    refused(lines, "'lines' is scored by loss, which takes likelihoods, and the server of org/tiny gives no")
    short = make_task("short", [], [{"text": "a"}] * 2, text="text", metric="loss")
    tiny.echoes = "yes"
    refused(short, "example 'score-0'.*its one token no likelihood")


def test_what_needs_likelihoods_or_the_model_itself_is_refused(
    server: Server, tiny: TinyModel, tasks: list[str], tmp_path: Path
) -> None:
    tiny.echoes = "ignored"
    (task,) = load_tasks(tasks[:1], None)
    there = [module.Server(server.url)]

    def refused(changed: Task, says: str) -> None:
        with pytest.raises(UserError, match=says):
            asked_alike(Asking(EvaluationSettings()), [changed], there, chat=False)

    refused(
        replace(task, metric="spearman"), "'animal' is scored by spearman, which takes likelihoods, and the s"
    )
    refused(
        replace(task, kind="benchmark"), r"'animal' \(benchmark\) cannot be put to an endpoint; leave the"
    )
    with pytest.raises(UserError, match=r"--probes: drift looks into a model"):
        check(server.url, server.url, tasks=tasks[:1], probes=["drift"], output=tmp_path / "check")


def test_choices_of_which_one_begins_another_are_refused(
    server: Server, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"word": f"kitten {k}", "kind": ("a", "b")[k % 2]} for k in range(4)]
    prompts = {"default": {"template": "{{ word }} =", "choices": {"a": "big", "b": "big dog"}}}
    task = make_task("nested", [], rows, label="kind", prompts=prompts)
    with pytest.raises(UserError, match="the tokens of one choice begin those of another"):
        check(server.url, server.url, tasks=[str(task)], output=tmp_path / "check")


def test_a_prompt_that_only_the_local_side_would_cut_is_refused(
    server: Server, tiny_llama: Path, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"word": "kitten " * 60, "kind": "cat"}, {"word": "hound", "kind": "dog"}]
    prompts = {"default": {"template": "{{ word }} =", "choices": {"cat": "cat", "dog": "dog"}}}
    task = make_task("long", [], rows, label="kind", prompts=prompts)
    with pytest.raises(UserError, match="more tokens than the model has positions"):
        check(str(tiny_llama), server.url, tasks=[str(task)], output=tmp_path / "check")


@pytest.mark.parametrize(
    ("rows", "common"),
    [
        ([("a", "b", "c"), ("a", "b", "d")], 2),
        ([("a", "b"), ("a", "b", "d"), ("a", "b", "c")], 2),
        ([("a", "\ufffd", "c"), ("a", "\ufffd", "c")], 1),  # as likely in no row: not the same token
        ([("a", "b", "c"), ("x", "b", "c")], 0),
    ],
)
def test_texts_agree_up_to_the_first_token_that_differs(rows: list[tuple[str, ...]], common: int) -> None:
    told = [
        Likelihoods(row, [None, *(-1.0 - (number if token == "\ufffd" else 0) for token in row[1:])])
        for number, row in enumerate(rows)
    ]
    assert agreement(told) == common
