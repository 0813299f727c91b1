"""The general probe against lm-eval by itself, and the benchmarks' rows from local files."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.probes import make_probe
from forgetmenot.probes.shared.probe import NOT_FINITE
from tests.probes.conftest import load

pytest.importorskip("lm_eval")


def instruction(question: str, choices: list[str], word: str, right: int) -> dict[str, str]:
    """A row in LLM-Adapters' form."""
    if word == "solution":
        listed = "\n\n".join(f"Solution{k}: {text}" for k, text in enumerate(choices, start=1))
        asked = f"Please choose the correct solution to the question: {question}"
    else:
        listed = " ".join(f"Answer{k}: {text}" for k, text in enumerate(choices, start=1))
        asked = f"Please choose the correct answer to the question: {question}"
    kinds = "/".join(f"{word}{k}" for k in range(1, len(choices) + 1))
    text = f"{asked}\n\n{listed}\n\nAnswer format: {kinds}"
    return {"instruction": text, "input": "", "output": "", "answer": f"{word}{right}"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a few rows of each benchmark."""
    folder = tmp_path_factory.mktemp("data") / "general"

    def write(name: str, text: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    piqa = [instruction(f"goal {k}", [f"do {k}", "wait, then stop"], "solution", 1 + k % 2) for k in range(6)]
    arc = [
        instruction(f"why {k}?", ["blue", "red", "two cats"][: 2 + k % 2], "answer", 1 + k % 2)
        for k in range(4)
    ]
    boolq = [
        {
            "instruction": "Please answer the following question with true or false, question: "
            f"is {k} a cat?\n\nAnswer format: true/false",
            "answer": "true" if k % 2 else "false",
        }
        for k in range(4)
    ]
    write("piqa/test.json", json.dumps(piqa))
    write("ARC-Easy/test.json", json.dumps(arc))
    write("boolq/test.json", json.dumps(boolq))
    dev = "".join(f'"What, is {k}?",one,two,three,four,{"ABCD"[k % 4]}\n' for k in range(5))
    test = "question,choice0,choice1,choice2,choice3,answer\n" + "What is 7?,six,seven,eight,nine,1\n" * 3
    write("mmlu/dev/astronomy_dev.csv", dev)
    write("mmlu/test/astronomy_test.csv", test)
    write("gsm8k/test.jsonl", json.dumps({"question": "1 + 1?", "answer": "It is 2.\n#### 2"}) + "\n")
    write("bbh/bbh/snarks.json", json.dumps({"examples": [{"input": "(A) or (B)?", "target": "(B)"}]}))
    return folder.parent


def drawn() -> tuple[Any, ...]:
    """The states of all generators that libraries share."""
    return random.getstate(), repr(np.random.get_state()), torch.random.get_rng_state().tolist()


def general(data: Path | None, *tasks: str, **options: Any) -> Any:
    return make_probe("general", {"tasks": tasks, **options}, data)


def test_rows_have_the_hubs_fields(data: Path) -> None:
    from forgetmenot.probes.shared.benchmarks import read_benchmark

    folder = data / "general"
    assert read_benchmark(folder, "baber/piqa", None) == {
        "train": [],
        "validation": [
            {"goal": f"goal {k}", "sol1": f"do {k}", "sol2": "wait, then stop", "label": k % 2}
            for k in range(6)
        ],
    }
    arc = read_benchmark(folder, "allenai/ai2_arc", "ARC-Easy")
    assert arc is not None
    assert arc["test"][1] == {
        "question": "why 1?",
        "choices": {"text": ["blue", "red", "two cats"], "label": ["1", "2", "3"]},
        "answerKey": "2",
    }
    mmlu = read_benchmark(folder, "cais/mmlu", "astronomy")
    assert mmlu is not None
    assert mmlu["dev"][1] == {
        "question": "What, is 1?",
        "choices": ["one", "two", "three", "four"],
        "answer": 1,
    }
    assert [row["answer"] for row in mmlu["test"]] == [1, 1, 1]
    assert read_benchmark(folder, "openai/gsm8k", "main") == {
        "train": [],
        "test": [{"question": "1 + 1?", "answer": "It is 2.\n#### 2"}],
    }
    assert read_benchmark(folder, "SaylorTwift/bbh", "snarks") == {
        "test": [{"input": "(A) or (B)?", "target": "(B)"}]
    }
    assert read_benchmark(folder, "boolq_without_passage", None) == {
        "validation": [{"question": f"is {k} a cat", "label": k % 2} for k in range(4)]
    }
    assert read_benchmark(folder, "SaylorTwift/bbh", "navigate") is None  # lm-eval then asks the hub
    assert read_benchmark(folder, "allenai/openbookqa", None) is None


def test_a_row_that_is_none_is_named(data: Path, tmp_path: Path) -> None:
    from forgetmenot.probes.shared.benchmarks import read_benchmark

    path = tmp_path / "mmlu" / "dev" / "astronomy_dev.csv"
    path.parent.mkdir(parents=True)
    path.write_text("what?,a,b,c,d,E\n")
    with pytest.raises(UserError, match=r"astronomy_dev\.csv, row 1: it is not a question"):
        read_benchmark(tmp_path, "cais/mmlu", "astronomy")
    path = tmp_path / "piqa" / "test.json"
    path.parent.mkdir()
    path.write_text(json.dumps([{"instruction": "no such form", "answer": "solution1"}]))
    with pytest.raises(UserError, match=r"row 1: its instruction is not in LLM-Adapters' form"):
        read_benchmark(tmp_path, "baber/piqa", None)


def test_parts_equal_lm_eval_by_itself(data: Path, tiny_llama: Path, learner: Learner) -> None:
    """lm-eval's own evaluation of the checkpoint with its Hugging Face model, on the same tasks."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    names = ("piqa", "arc_easy", "mmlu_astronomy", "boolq_without_passage")
    probe = general(data, *names)
    parts = probe.measure(learner, "00-base", "00-base", data / "none")
    assert [part.name for part in parts] == list(names)
    assert [part.n for part in parts] == [6, 4, 3, 4]
    tasks = [task for _, loaded in probe._tasks() for task in loaded["tasks"].values()]
    alone = simple_evaluate(
        model=HFLM(pretrained=str(tiny_llama), device="cpu", dtype="float32", batch_size=2),
        tasks=tasks,
        task_manager=probe._manager,  # making one of its own takes long
        bootstrap_iters=1,
        log_samples=False,
    )
    for part in parts:
        wanted = alone["results"][part.name]
        assert part.metric == "acc,none"
        assert part.value == wanted["acc,none"]
        assert part.more.get("acc_norm,none") == wanted.get("acc_norm,none")
        half = 1.96 * wanted["acc_stderr,none"]
        assert part.interval == pytest.approx((max(0, part.value - half), min(1, part.value + half)))


@pytest.mark.parametrize("task", ["piqa", "gsm8k_cot"], ids=["choices", "writing"])
def test_a_model_without_numbers_has_no_score(task: str, data: Path, broken: Learner, tmp_path: Path) -> None:
    """Lm-eval itself takes the first choice."""
    probe = general(data, task, limit=2, num_fewshot=0)
    for name in ("max_gen_toks",):  # its texts are longer than the tiny model
        for _, tasks in probe._tasks():
            for one in tasks["tasks"].values():
                if one.config.generation_kwargs:
                    one.config.generation_kwargs[name] = 4
    (part,) = probe.measure(broken, "00-base", "00-base", tmp_path)
    assert (part.value, part.interval, part.reason) == (None, None, NOT_FINITE)


def test_a_task_file_a_limit_and_shots(tmp_path: Path, learner: Learner) -> None:
    """A task of lm-eval's kind from a user's own YAML, whose shots are drawn: each stage draws the same."""
    rows = "".join(json.dumps({"q": f"word {k}", "a": k % 2}) + "\n" for k in range(9))
    (tmp_path / "rows.jsonl").write_text(rows)
    own = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "{{q}}:",
        "doc_to_choice": ["cat", "dog"],
        "doc_to_target": "a",
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(own))
    probe = general(None, str(path), limit=4, num_fewshot=2)
    torch.manual_seed(1)
    before = drawn()
    (first,) = probe.measure(learner, "00-base", "00-base", tmp_path / "none")
    learner.reset_counts()
    (again,) = probe.measure(learner, "01-x", "00-base", tmp_path / "none")
    assert drawn() == before
    assert again == first
    assert (first.name, first.n, first.more["num_fewshot"]) == ("own", 4, 2)


def test_few_shots_are_computed_once(shared: Path) -> None:
    real = load(shared / "models" / "base-4m")
    shots = {"mmlu_astronomy": 5, "mmlu_anatomy": 5}
    probe = general(shared / "data", *shots, limit=20, num_fewshot=shots)
    parts = probe.measure(real, "00-base", "00-base", shared / "none")
    assert [part.n for part in parts] == [20, 20]
    assert all(0.05 < part.value < 0.7 for part in parts if part.value is not None)
    assert real.counts["computed"] < real.counts["without_sharing"] / 12


def test_what_lm_eval_does_not_know_is_said_with_the_nearest(data: Path) -> None:
    with pytest.raises(UserError, match=r"is listed twice"):
        general(data, "piqa", "piqa")
    with pytest.raises(UserError, match=r"num_fewshot: 'piqqa' is not one .* Did you mean 'piqa'"):
        general(data, "piqa", num_fewshot={"piqqa": 3})
    with pytest.raises(UserError, match=r"evaluation\.probes\.general\.limt: .* Did you mean 'limit'"):
        make_probe("general", {"limt": 3}, data)


def test_data_that_is_nowhere_is_said(tmp_path: Path, learner: Learner) -> None:
    probe = general(tmp_path, "piqa")
    with pytest.raises(UserError, match=r"piqa: its rows, .*/piqa, cannot be had from the hub: .* data_dir"):
        probe.measure(learner, "00-base", "00-base", tmp_path)
