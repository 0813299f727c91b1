import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.quickstart.build_suite import FOLDER as SUITE
from scripts.quickstart.build_suite import TASKS
from scripts.quickstart.pretrain import FOLDER, SIZES

PARAMETERS = {"small": (400_000, 700_000), "base": (1_800_000, 2_400_000)}


@pytest.mark.parametrize("size", SIZES)
def test_the_bundled_weights_load_and_know_their_language(size: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER / size)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / size)
    least, most = PARAMETERS[size]
    assert least < model.num_parameters() < most
    assert model.dtype == torch.bfloat16
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    model.float()

    def loss(text: str) -> float:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        return float(model(input_ids=ids, labels=ids).loss)

    assert (
        loss("The dogs near the old baker were sleeping.")
        < loss("The dogs baker old near the were sleeping.") - 1
    )
    assert loss("Every sparrow is a bird.") < loss("Every sparrow is a tool.")


@pytest.mark.parametrize("size", SIZES)
def test_the_tokenizer_gives_back_every_text(size: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / size)
    said = [json.loads(line) for path in SUITE.glob("*.jsonl") for line in path.open(encoding="utf-8")]
    texts = [text for row in said[::7] for name, text in row.items() if name not in ("id", "label")]
    for text in [*texts, "naïve – 漢字\t\n  end ", ""]:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    longest = max(len(tokenizer(" ".join(text for text in row.values()))["input_ids"]) for row in said)
    assert longest < 80


@pytest.mark.parametrize("size", SIZES)
def test_labels_are_words_of_the_vocabulary(size: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / size)
    for word in ("positive", "negative", "yes", "no"):
        assert len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1


def test_the_chat_template_speaks_in_turns() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "base")
    turns = [{"role": "user", "content": "Is a crow a bird?"}]
    said = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert said == "<|endoftext|>User: Is a crow a bird?\nAssistant:"


def test_everything_bundled_is_small() -> None:
    files = [path for folder in (FOLDER, SUITE) for path in Path(folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8_000_000
    assert len(list(SUITE.glob("*.jsonl"))) == 2 * len(TASKS)


@pytest.mark.parametrize("size", SIZES)
def test_each_model_says_how_it_was_made(size: str) -> None:
    card = (FOLDER / size / "README.md").read_text(encoding="utf-8")
    assert f"python -m scripts.quickstart.pretrain {size} --seed 0" in card
    assert "nats per token" in card


@pytest.mark.slow
def test_pre_training_goes_from_nothing_to_a_model_and_repeats(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    for name in ("one", "two"):
        command = [sys.executable, "-m", "scripts.quickstart.pretrain", "small", "--steps", "5"]
        subprocess.run([*command, "--output", tmp_path / name], cwd=root, check=True, capture_output=True)
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("one", "two"))
    for left, right in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(left, right)
    assert "--steps 5" in (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
