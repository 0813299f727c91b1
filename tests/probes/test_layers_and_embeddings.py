"""Layer similarity and sentence embeddings, against one sequence at a time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor

from forgetmenot.embedding.prompt import prepared
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.metrics.alignment import alignment, biased_cka
from forgetmenot.probes import make_probe
from forgetmenot.probes.shared.probe import NOT_FINITE


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    texts = ["Word: cat", "Word: hound", "Kind: red", "sea", "Word: tower and hill"]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path


def states_alone(learner: Learner, texts: list[str], layer: int) -> Tensor:
    rows = []
    for text in texts:
        tokens = torch.tensor([learner.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            rows.append(
                learner.model(input_ids=tokens, output_hidden_states=True).hidden_states[layer][0, -1]
            )
    return torch.stack(rows)


def arrays(states: Sequence[Tensor]) -> list[np.ndarray]:
    """Those of the layers."""
    return [one.numpy() for one in states[1:]]


def test_layers_are_one_for_the_base_and_less_where_weights_have_changed(
    learner: Learner, prompts: Path, tmp_path: Path
) -> None:
    probe = make_probe("layers", {"prompts": str(prompts)}, None)
    base = probe.measure(learner, "00-base", "00-base", tmp_path / "probe")
    assert [part.name for part in base] == ["layer 1", "layer 2"]
    assert [part.value for part in base] == pytest.approx([1, 1])
    texts = [json.loads(line)["prompt"] for line in prompts.read_text().splitlines()]
    before = [states_alone(learner, texts, layer) for layer in range(3)]
    with torch.no_grad():
        weight = learner.model.model.layers[1].mlp.down_proj.weight
        weight += torch.randn_like(weight)
    after = probe.measure(learner, "01-x", "00-base", tmp_path / "probe")
    now = [states_alone(learner, texts, layer) for layer in range(3)]
    wanted = [alignment(*pair, 1).debiased for pair in zip(arrays(now), arrays(before), strict=True)]
    assert [part.value for part in after] == pytest.approx(wanted, abs=1e-4)
    biased = [biased_cka(*pair) for pair in zip(arrays(now), arrays(before), strict=True)]
    assert [part.more["biased"] for part in after] == pytest.approx(biased, abs=1e-5)
    assert after[0].value == pytest.approx(1)
    assert after[1].value is not None
    assert after[1].value < 0.99
    assert after[0].more["own change"] == pytest.approx(0, abs=1e-4)
    assert after[1].more["before"] == after[1].value  # the stage before is the base
    assert after[1].more["own change"] == after[1].more["own change of the stage"] > 0.01
    third = probe.measure(learner, "02-y", "00-base", tmp_path / "probe")
    assert third[1].value == pytest.approx(after[1].value)
    assert third[1].more["before"] == pytest.approx(1)
    with pytest.raises(UserError, match="limit"):
        make_probe("layers", {"prompts": str(prompts), "limit": 3}, None)


def test_all_layers_come_from_one_pass_and_the_top_one_before_and_after_the_norm(
    learner: Learner, prompts: Path
) -> None:
    texts = [json.loads(line)["prompt"] for line in prompts.read_text().splitlines()]
    tokens = [tuple(learner.tokenizer(text)["input_ids"]) for text in texts]
    found = learner.layer_states(tokens)
    for layer, place in ((0, 0), (1, 1), (2, 3)):
        assert torch.allclose(found[:, place], states_alone(learner, texts, layer), atol=1e-5)
        assert torch.equal(found[:, place], learner.hidden(tokens, layer))
    assert torch.allclose(learner.model.model.norm(found[:, 2]), found[:, 3], atol=1e-5)


def test_a_layer_that_says_the_same_of_all_prompts_is_null(learner: Learner, tmp_path: Path) -> None:
    path = tmp_path / "alike.json"
    path.write_text(json.dumps([{"prompt": f"{word}!"} for word in ("cat", "dog", "sea", "red")]))
    with torch.no_grad():  # nothing passes from one token to another in the first layer
        learner.model.model.layers[0].self_attn.o_proj.weight.zero_()
    first, *others = make_probe("layers", {"prompts": str(path)}, None).measure(
        learner, "00-base", "00-base", tmp_path / "probe"
    )
    assert (first.value, first.reason) == (
        None,
        "all inputs have the same state there, or all states are equally far apart",
    )
    assert [part.value for part in others] == pytest.approx([1])


def test_layers_of_a_model_without_numbers_are_null(broken: Learner, prompts: Path, tmp_path: Path) -> None:
    probe = make_probe("layers", {"prompts": str(prompts)}, None)
    *before, last = probe.measure(broken, "00-base", "00-base", tmp_path / "probe")
    assert [part.value for part in before] == pytest.approx([1])
    assert (last.value, last.reason) == (None, NOT_FINITE)


def test_inputs_that_are_no_numbers_for_one_model_are_left_out_for_both(
    learner: Learner, prompts: Path, tmp_path: Path
) -> None:
    """MOSSA's code drops them from each model separately, and the others no longer pair."""
    probe = make_probe("layers", {"prompts": str(prompts)}, None)
    plain = learner.layer_states

    def overflowing(rows: Sequence[tuple[int, ...]]) -> Tensor:
        states = plain(rows)
        states[1, 2] = float("inf")
        return states

    probe.measure(learner, "00-base", "00-base", tmp_path / "probe")
    learner.layer_states = overflowing  # type: ignore[method-assign, assignment]
    parts = probe.measure(learner, "01-x", "00-base", tmp_path / "probe")
    assert [(part.n, part.more.get("dropped")) for part in parts] == [(5, None), (4, 1.0)]
    assert [part.value for part in parts] == pytest.approx([1, 1])


def test_a_stage_before_that_has_diverged_leaves_the_likeness_to_the_base(
    learner: Learner, prompts: Path, tmp_path: Path
) -> None:
    """As where each stage starts from the base (`single`), and one of them diverges."""
    probe = make_probe("layers", {"prompts": str(prompts)}, None)
    probe.measure(learner, "00-base", "00-base", tmp_path / "probe")
    plain = learner.layer_states
    nothing = lambda rows: torch.full_like(plain(rows), float("nan"))  # noqa: E731
    learner.layer_states = nothing  # type: ignore[method-assign]
    assert [part.reason for part in probe.measure(learner, "01-x", "00-base", tmp_path / "probe")] == [
        NOT_FINITE
    ] * 2
    learner.layer_states = plain  # type: ignore[method-assign]
    parts = probe.measure(learner, "02-y", "00-base", tmp_path / "probe")
    assert [part.value for part in parts] == pytest.approx([1, 1])
    assert [part.n for part in parts] == [5, 5]
    assert all("own change" in part.more and "before" not in part.more for part in parts)


def test_an_embedding_without_numbers_is_null(broken: Learner, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "glue" / "stsb"
    folder.mkdir(parents=True)
    rows = [
        {"idx": k, "sentence1": f"cat {k}", "sentence2": f"dog {k}", "label": float(k % 5)} for k in range(40)
    ]
    for split in ("train", "validation"):
        pd.DataFrame(rows).to_parquet(folder / f"{split}-0.parquet")
    probe = make_probe("embeddings", {"limit": 10}, tmp_path / "data")
    (part,) = probe.measure(broken, "00-base", "00-base", tmp_path)
    assert (part.value, part.reason) == (None, NOT_FINITE)


def test_embeddings_are_promptEOLs_and_the_number_is_spearmans(  # noqa: N802 (its name)
    shared: Path, learner: Learner, tmp_path: Path
) -> None:
    learner.model.config.max_position_embeddings = 256
    probe: Any = make_probe("embeddings", {"limit": 40}, shared / "data")
    (part,) = probe.measure(learner, "00-base", "00-base", tmp_path)
    cosines = []
    (pairs,) = probe.pairs
    for pair in zip(pairs.first, pairs.second, strict=True):
        texts = [f'This sentence : "{prepared(text)}" means in one word:"' for text in pair]
        one, other = states_alone(learner, texts, -1).double()
        cosines.append(float(one @ other / (one.norm() * other.norm())))
    gold = pairs.gold.tolist()
    assert part.value == pytest.approx(np.corrcoef(rankdata(cosines), rankdata(gold))[0, 1], abs=2e-3)
    assert part.n == 40
    assert part.interval is not None
    assert part.interval[0] < part.value < part.interval[1]
    assert len(set(gold)) > 5


def test_embeddings_of_several_sets_have_a_part_each(shared: Path, learner: Learner, tmp_path: Path) -> None:
    if not (shared / "data" / "senteval").is_dir():
        pytest.skip("the files of SentEval are not beside this checkout")
    learner.model.config.max_position_embeddings = 512
    options = {"sets": ["stsb-test", "sts13"], "limit": 30, "pooling": "mean"}
    parts = make_probe("embeddings", options, shared / "data").measure(learner, "b", "b", tmp_path)
    assert [(part.name, part.n) for part in parts] == [("stsb-test", 30), ("sts13", 30)]
    assert all(part.value is not None for part in parts)
    with pytest.raises(UserError, match=r"no set 'sts17'"):
        make_probe("embeddings", {"sets": ["sts17"]}, None)
