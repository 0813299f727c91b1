"""CALM's key-value experiment: its world, its models' lines, its tasks, its controls, and the leak."""

import json
import re
from itertools import cycle, islice
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import forgetmenot
from forgetmenot.models.composition import Bridge, Seen, compose
from forgetmenot.prompting import Encoder, choose_prompt
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.studies.config import expand_study, load_study
from forgetmenot.tasks.custom import load_custom
from scripts.key_value import __main__ as command
from scripts.key_value import models, tasks
from scripts.key_value.models import (
    ASKED,
    END,
    EQUALS,
    IGNORED,
    NUMBER_OF,
    PAD,
    Shape,
    ids_of,
    make_tokenizer,
    padded,
    reads_the_question_alone,
    save,
    sums,
    to_unit_scale,
    train,
    untrained,
)
from scripts.key_value.table import ANCHOR, AUGMENTING, COMPOSED, LORA, table
from scripts.key_value.table import LEARNED as LEARNED_IN_WORDS
from scripts.key_value.tasks import LEARNED, TESTED, TESTS, TO_COMPOSE, write_tasks
from scripts.key_value.world import KEYS, OPERANDS, expressions, make_world

RECIPE = Path(__file__).parents[2] / "recipes" / "key-value.yaml"
SMALL = Shape(32, 64, layers=4, heads=2)
WORLD = make_world(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks as the recipe finds them."""
    folder = tmp_path_factory.mktemp("world") / "key-value"
    write_tasks(WORLD, folder, seed=0)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    assert make_world(0) == WORLD
    assert make_world(1).numbers != WORLD.numbers
    assert len(WORLD.numbers) == KEYS
    assert len(WORLD.to_compose) == KEYS // 5
    assert sorted(WORLD.to_compose + WORLD.held_out) == sorted(WORLD.numbers)


@given(st.integers(0, 10**6))
def test_an_expression_means_what_its_keys_stand_for(seed: int) -> None:
    one = next(expressions(WORLD, WORLD.held_out, Random(seed)))
    translated = re.sub("[a-z]+", lambda key: f"{WORLD.numbers[key[0]]:02d}", one.keys)
    assert translated == one.numbers
    python = re.sub(r"\b0", "", one.numbers)  # 07 is no number to Python
    assert int(one.value) == eval(python)
    assert re.fullmatch(r"[+-]\d{3}", one.value)


def test_an_anchors_line_is_right_and_its_letters_mean_nothing() -> None:
    lines = list(islice(sums(0, OPERANDS, share_with_letters=0.25), 2000))
    with_letters = [asked for asked, _ in lines if ASKED in asked]
    assert 0.2 < len(with_letters) / len(lines) < 0.3
    for asked, written in lines:
        numbers = asked.rpartition(ASKED)[2].removesuffix(EQUALS)
        assert int(written.removesuffix(END)) == eval(re.sub(r"\b0", "", numbers))
    for asked in with_letters:
        assert not re.search(r"\d", asked.partition(ASKED)[0])


def test_a_batch_learns_what_is_written_alone() -> None:
    ids, targets = padded([("ab+c" + ASKED, "12-03="), ("07=", "+007" + END)])
    assert ids[0].tolist() == ids_of("ab+c>12-03=")
    learned = [[token for token in row if token != IGNORED] for row in targets.tolist()]
    assert learned == [ids_of("12-03="), ids_of("+007" + END)]
    assert learned[1][-1] == NUMBER_OF[END]


def test_training_learns_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "BATCH", 12)
    monkeypatch.setattr(models, "WARMUP_STEPS", 5)
    model = untrained(SMALL, seed=0)
    lines = [("ab>", "12="), ("ba>", "21="), ("a>", "03=")]
    train(model, cycle(lines), 120)
    assert models.loss_of(model, *padded(lines)).item() < 0.05


def test_at_unit_scale_a_model_is_the_same(tmp_path: Path) -> None:
    model = untrained(SMALL, seed=0)
    lines = list(islice(sums(0, OPERANDS, share_with_letters=0.25), 20))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight *= 300
    ids, _ = padded(lines)
    before = model(input_ids=ids).logits
    to_unit_scale(model, lines)
    save(model, tmp_path / "model")
    for same in (model, AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()):
        found = same(input_ids=ids, output_hidden_states=True)
        torch.testing.assert_close(found.logits, before, rtol=1e-4, atol=1e-4)
        within = torch.stack(found.hidden_states[1:-1])[:, ids != NUMBER_OF[PAD]]
        assert within.square().mean().sqrt().item() == pytest.approx(1, abs=1e-3)


def test_the_tokenizer_is_saved_and_gives_back_every_letter(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "abcxyz+q-rs>0123456789="
    assert tokenizer(text)["input_ids"] == ids_of(text)
    assert tokenizer.decode(ids_of(text)) == text


def test_an_encoder_reads_the_question_alone(tmp_path: Path) -> None:
    reads_the_question_alone().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["ab+c", "ab+c>", "ab+c>1", "ab+c>12-03=+009", "12-03="]
    found = tokens_of(tokenizer).plain(texts)
    assert found == [tuple(ids_of(text)) for text in ("ab+c", "ab+c>", "ab+c>", "ab+c>", "12-03=")]
    assert tokenizer.get_vocab() != make_tokenizer().get_vocab()  # else a bridge takes the anchor's tokens


def test_the_bridge_learns_on_its_own_keys_alone(folder: Path) -> None:
    learned, tested = rows(folder / "compose.jsonl"), rows(folder / "test.jsonl")
    assert (len(learned), len(tested)) == (TO_COMPOSE, TESTED)
    keys = [{key for row in some for key in re.findall("[a-z]+", row["keys"])} for some in (learned, tested)]
    assert keys[0] == set(WORLD.to_compose)
    assert keys[1] <= set(WORLD.held_out)


@pytest.mark.parametrize(("name", "end"), [("substitution", ""), ("arithmetic", END)])
def test_what_the_bridge_learns(folder: Path, name: str, end: str) -> None:
    task = load_custom(folder / f"learn-{name}.yaml")
    one = task.train[0]
    (row,) = (row for row in rows(folder / "compose.jsonl") if row["keys"] == one.fields["keys"])
    written = row["numbers"] + EQUALS + (row["value"] if name == "arithmetic" else "")
    encoded = Encoder(task, choose_prompt(task, "default"), make_tokenizer(), 64).encode(one)
    assert list(encoded.answer.tokens) == ids_of(row["keys"] + ASKED + written + end)
    assert encoded.answer.start == len(row["keys"] + ASKED)


def test_each_test_asks_the_same_expressions(folder: Path) -> None:
    keys = [row["keys"] for row in rows(folder / "test.jsonl")]
    for name in TESTS:
        task = load_custom(folder / f"{name}.yaml")
        assert not task.train
        assert [example.fields["keys"] for example in task.score] == keys


def test_without_a_causal_mask_the_bridge_reads_the_answer() -> None:
    """As in the official code, where each position attends to the augmenting model's states of all positions.

    The answers are drawn at random, so that nobody can know one: more than chance is a leak.
    """

    def right(*, causal: bool) -> float:
        torch.manual_seed(0)
        rng = Random(0)
        anchor, augmenting = untrained(SMALL, seed=1), untrained(SMALL, seed=2)
        bridge = Bridge(augmenting.base_model, anchor.requires_grad_(False), connections=2, heads=2)
        composed = compose(anchor)
        composed.add(bridge)
        bridge.connections.requires_grad_(True)
        optimizer = torch.optim.Adam(bridge.connections.parameters(), lr=1e-2)
        scores = []
        for step in range(160):
            lines = [("a+b>", rng.choice("0123456789")) for _ in range(64)]
            ids, targets = padded(lines)
            n = ids.shape[1]
            mask = torch.ones(1, 1, n, n, dtype=torch.bool)
            with torch.no_grad():
                states = augmenting.base_model(input_ids=ids, output_hidden_states=True).hidden_states[1:]
            with composed.seeing(Seen(tuple(states), mask.tril() if causal else mask)):
                logits = anchor(input_ids=ids).logits[:, -2]
            torch.autograd.backward(torch.nn.functional.cross_entropy(logits, targets[:, -1]))
            optimizer.step()
            optimizer.zero_grad()
            if step >= 120:
                scores.append(float((logits.argmax(-1) == targets[:, -1]).float().mean()))
        return sum(scores) / len(scores)

    assert right(causal=False) > 0.9
    assert right(causal=True) < 0.15


def test_the_recipe_is_made_of_what_the_script_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    runs = expand_study(load_study(RECIPE))
    tasks = {str(name) for run in runs for name in (*run.config.tasks, *run.config.evaluation.also_score)}
    assert tasks == {f"key-value/{name}.yaml" for name in (*LEARNED, *TESTS)}
    assert all(Path(name).is_file() for name in tasks)
    adapters = [run.config.adapter for run in runs if run.config.adapter.kind == "bridge"]
    assert {Path(adapter.augmenting.name).name for adapter in adapters} == set(COMPOSED)


@pytest.mark.slow
def test_one_command_makes_what_the_study_needs_and_the_table_has_every_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole recipe with small models and few rows."""
    monkeypatch.chdir(tmp_path)
    for module, name, value in [
        (tasks, "TO_COMPOSE", 64), (tasks, "TESTED", 10), (models, "BATCH", 8),
        (models, "AUGMENTING", SMALL), (models, "ANCHOR", SMALL),
        (command, "AUGMENTING_STEPS", 3), (command, "ANCHOR_STEPS", 5),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("sys.argv", ["key_value", "--threads", str(torch.get_num_threads())])
    command.main()
    weights = {path.parent.name: path.read_bytes() for path in Path("key-value").glob("*/model.safetensors")}
    assert set(weights) == {"anchor", "augmenting", "random", "encoder"}
    assert weights["encoder"] == weights["augmenting"] != weights["random"]
    command.main()  # what is there is not trained again
    for name, content in weights.items():
        assert (Path("key-value") / name / "model.safetensors").read_bytes() == content

    study = load_study(RECIPE, {"grid.seed": [0]})
    for run in expand_study(study):
        forgetmenot.run(run.config)
    lines = table(study.directory)
    names = [line.split(" | ")[0].strip("| ") for line in lines[2:]]
    first, second = (f"; {words}" for words in LEARNED_IN_WORDS.values())
    composed, random, encoder = (f"{kind}, 4 connections" for kind in COMPOSED.values())
    assert names == [
        AUGMENTING, ANCHOR, composed + first,
        *(kind + second for kind in (composed, random, encoder, LORA)),
    ]  # fmt: skip
    assert all(re.fullmatch(r"\| .* (\| \d+\.\d \[\d+\.\d, \d+\.\d\] ){3}\|", line) for line in lines[2:])
