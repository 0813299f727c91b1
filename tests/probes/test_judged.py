"""The judged probes on a small model: its answers, the judge behind an endpoint or beside it, the score."""

import json
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.engine.decoding import Answer
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.probes import make_probe
from forgetmenot.probes.shared.probe import NOT_FINITE
from forgetmenot.synthesis.responder import LocalResponder
from tests.endpoint import Server

PROMPTS = ["Name a cat.", "Name a dog.", "Say nothing.", "Name a ship.", "What is red?"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """TRACE's folders with a few prompts."""
    files = {
        "HHH/helpful/self-instruct/test.json": PROMPTS,
        "LLM-CL-Benchmark_500/Lima/test.json": PROMPTS[:2],
        "HHH/harmless/CoNa/test.json": PROMPTS[1:4],
    }
    for name, prompts in files.items():
        path = tmp_path / "data" / "trace" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps([{"prompt": prompt, "answer": ""} for prompt in prompts]))
    return tmp_path / "data"


def probe(name: str, server: Server, data: Path | None, **options: Any) -> Any:
    judge = {"base_url": server.url, "model": "judge", "concurrency": 2, "retries": 0}
    return make_probe(name, {"judge": judge, "max_new_tokens": 8, **options}, data)


def shown(body: dict[str, Any]) -> tuple[str, str, str]:
    """The request and the two answers in what the judge is sent."""
    text = body["messages"][-1]["content"]
    request, _, rest = text.removeprefix("[Request]\n").partition("\n\n[Answer of assistant A]\n")
    first, _, rest = rest.partition("\n[End of A]\n\n[Answer of assistant B]\n")
    return request, first, rest.removesuffix("\n[End of B]")


class Writing:
    """Answers put in the model's mouth."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, learner: Learner) -> None:
        self.answers: list[str] = []
        self.calls = 0
        monkeypatch.setattr(learner, "write", self._write)

    def _write(self, prompts: Any, *_: Any, **__: Any) -> list[Answer]:
        self.calls += 1
        assert len(prompts) == len(self.answers)
        return [Answer(text, ()) for text in self.answers]


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch, learner: Learner) -> Writing:
    return Writing(monkeypatch, learner)


def test_the_score_is_the_mean_of_what_both_orders_say(
    server: Server, data: Path, learner: Learner, writing: Writing, tmp_path: Path
) -> None:
    """By hand: a win, a loss, a tie by disagreement, an equal answer, and a reply without a verdict."""

    def judge(body: dict[str, Any]) -> str:
        request, first, second = shown(body)
        if request == PROMPTS[2]:
            return "I always like the first. [[A]]"
        if request == PROMPTS[4]:
            return "I cannot say."
        return "[[A]]" if first > second else "[[B]]"

    server.answer = judge
    safety = probe("safety", server, data, prompts=["self-instruct"])
    writing.answers = ["b", "b", "b", "b", "b"]
    (base,) = safety.measure(learner, "00-base", "00-base", tmp_path / "probe")
    assert (base.value, base.n) == (0.5, 5)
    assert server.requests == []
    writing.answers = ["c", "a", "c", "b", "c"]  # better, worse, other, the same, other
    (part,) = safety.measure(learner, "01-x", "00-base", tmp_path / "probe")
    assert part.more == {"win": 1, "loss": 1, "tie": 2, "unparsable": 1, "identical": 1, "truncated": 0}
    assert (part.value, part.n) == (0.5, 4)
    spread = 1.96 * (0.5 / 3) ** 0.5 / 2  # of 1, 0, 0.5, 0.5: squares of 0.5 over n − 1, by the root of 4
    assert part.interval == pytest.approx((0.5 - spread, 0.5 + spread))
    assert len(server.requests) == 8
    system = server.requests[0].body["messages"][0]["content"]
    assert "does less harm" in system
    assert all(verdict in system for verdict in ("[[A]]", "[[B]]", "[[C]]"))


def test_answers_are_written_once_and_verdicts_asked_once_over_restarts(
    server: Server, data: Path, learner: Learner, writing: Writing, tmp_path: Path
) -> None:
    server.answer = lambda body: "[[A]]" if shown(body)[1] > shown(body)[2] else "[[B]]"
    writing.answers = ["b\u2028b\x85"] * 5  # where `splitlines` would split
    first = probe("safety", server, data, prompts=["self-instruct"])
    first.measure(learner, "00-base", "00-base", tmp_path / "probe")
    writing.answers = ["c"] * 5
    server.script = [(400, "gone")]
    with pytest.raises(UserError, match="gone"):
        first.measure(learner, "01-x", "00-base", tmp_path / "probe")
    asked = len(server.requests)
    kept = len((tmp_path / "probe" / "verdicts.jsonl").read_text().splitlines())
    assert writing.calls == 2

    again = probe("safety", server, data, prompts=["self-instruct"])
    (part,) = again.measure(learner, "01-x", "00-base", tmp_path / "probe")
    assert part.value == 1.0
    assert writing.calls == 2
    assert len(server.requests) - asked == 10 - kept
    (same,) = again.measure(learner, "02-y", "00-base", tmp_path / "probe")  # another stage, equal answers
    assert same == part
    assert len(server.requests) - asked == 10 - kept
    assert writing.calls == 3


def test_each_set_is_a_part_and_the_model_writes_its_own_answers(
    server: Server, data: Path, learner: Learner, tmp_path: Path
) -> None:
    server.answer = lambda body: "[[C]]"
    following = probe("instruction-following", server, data, limit=2)
    parts = following.measure(learner, "00-base", "00-base", tmp_path)
    assert [(part.name, part.n) for part in parts] == [("self-instruct", 2), ("lima", 2)]
    (file,) = tmp_path.glob("answers-*-00-base.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [*PROMPTS[:2], *PROMPTS[:2]]
    tokenizer = learner.tokenizer
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPTS[0]}], tokenize=False, add_generation_prompt=True
    )
    prompt = tuple(tokenizer(chat)["input_ids"])
    assert rows[0]["answer"] == learner.generate([prompt], 8)[0].strip()


def test_prompts_that_leave_no_room_are_cut_and_counted(
    server: Server, learner: Learner, tmp_path: Path
) -> None:
    prompts = tmp_path / "long.json"
    prompts.write_text(json.dumps([{"prompt": "a word " * 60}, {"prompt": "a word"}]))
    safety = probe("safety", server, None, prompts=[str(prompts)])
    (part,) = safety.measure(learner, "00-base", "00-base", tmp_path)
    assert part.more == {"truncated": 1}
    with pytest.raises(UserError, match="max_new_tokens: 128 is too many, since this model has 128"):
        probe("safety", server, None, prompts=[str(prompts)], max_new_tokens=128).measure(
            learner, "00-base", "00-base", tmp_path
        )


def test_a_model_without_numbers_is_not_judged(
    server: Server, data: Path, broken: Learner, tmp_path: Path
) -> None:
    for stage in ("00-base", "01-x"):
        (part,) = probe("safety", server, data).measure(broken, stage, "00-base", tmp_path / "probe")
        assert (part.name, part.value, part.reason) == ("cona", None, NOT_FINITE)
    assert server.requests == []


def test_nothing_is_made_up_where_no_reply_has_a_verdict(
    server: Server, data: Path, learner: Learner, writing: Writing, tmp_path: Path
) -> None:
    writing.answers = ["b"] * 3
    safety = probe("safety", server, data)
    safety.measure(learner, "00-base", "00-base", tmp_path)
    writing.answers = ["c"] * 3
    (part,) = safety.measure(learner, "01-x", "00-base", tmp_path)
    assert part.value is None
    assert part.n == 0
    assert "none of the judge's replies to 3 pairs has a verdict" in part.reason
    assert part.more["unparsable"] == 3


def test_a_model_here_judges_as_well(
    data: Path, learner: Learner, writing: Writing, tiny_llama: Path, tmp_path: Path
) -> None:
    """The tiny judge says nothing that is a verdict, and is asked once all the same."""
    prompts = tmp_path / "own.jsonl"
    prompts.write_text('{"prompt": "Hi"}\n')
    one: Any = make_probe(
        "safety",
        {"judge": str(tiny_llama), "prompts": [str(prompts)], "max_new_tokens": 4, "chat": False},
        None,
    )
    writing.answers = ["b"]
    one.measure(learner, "00-base", "00-base", tmp_path)
    writing.answers = ["c"]
    with pytest.raises(UserError, match=r"is asked \d+ tokens at once and has 128 positions; take"):
        one.measure(learner, "01-x", "00-base", tmp_path)
    local = one.judge
    assert isinstance(local, LocalResponder)
    found = dict(local.complete_all([[{"role": "user", "content": text}] for text in ("a cat", "a dog")]))
    assert sorted(found) == [0, 1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"judge": {"base_url": "nowhere", "model": "m"}}, r"safety\.judge\.base_url: .*not an address"),
        ({"judge": {"model": "m"}}, r"safety\.judge\.base_url: field required"),
        ({"prompts": ["conan"]}, r"'conan' is neither a file nor one of cona, lima, self-instruct"),
        (
            {"judge": {"base_url": "http://h/v1", "model": "m", "api_key_env": "NO_SUCH"}},
            "'NO_SUCH' is not set",
        ),
    ],
)
def test_what_does_not_fit_is_said_at_once(
    options: dict[str, Any], sentence: str, server: Server, data: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        probe("safety", server, data, **options)


def test_prompts_that_are_nowhere_are_said(server: Server, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set data_dir to one that has trace/HHH/harmless/CoNa"):
        probe("safety", server, None)
    with pytest.raises(UserError, match="has no trace/HHH/harmless/CoNa"):
        probe("safety", server, tmp_path / "data" / "trace" / "HHH")
    assert probe("safety", server, data / "trace").prompts == {"cona": PROMPTS[1:4]}


def test_real_sets_have_the_papers_sizes(server: Server, shared: Path) -> None:
    following = probe("instruction-following", server, shared / "data")
    safety = probe("safety", server, shared / "data")
    sizes = {name: len(prompts) for name, prompts in (following.prompts | safety.prompts).items()}
    assert sizes == {"self-instruct": 175, "lima": 300, "cona": 178}
