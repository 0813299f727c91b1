"""Layer similarity and sentence embeddings, against one sequence at a time and other formulas."""

import json
import math
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
from forgetmenot.probes import make_probe
from forgetmenot.probes.layers import debiased_cka, linear_cka
from forgetmenot.probes.shared.probe import NOT_FINITE


def kernel_cka(one: Tensor, other: Tensor) -> float:
    """The first paper's form: HSIC of doubly centred Gram matrices."""
    centre = torch.eye(len(one), dtype=torch.float64) - 1 / len(one)
    k, m = (centre @ (values.double() @ values.double().T) @ centre for values in (one, other))
    return float((k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt())


def unbiased_hsic(one: Tensor, other: Tensor) -> float:
    """Song et al. 2012, eq. 5, on Gram matrices without their diagonals."""
    n = len(one)
    k, m = (values.double() @ values.double().T for values in (one, other))
    k, m, ones = k - k.diag().diag(), m - m.diag().diag(), torch.ones(n, dtype=torch.float64)
    terms: Tensor = (k @ m).trace() + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return float((terms - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3)))


def by_hsic(one: Tensor, other: Tensor) -> float:
    return unbiased_hsic(one, other) / math.sqrt(unbiased_hsic(one, one) * unbiased_hsic(other, other))


def test_the_biased_cka_is_the_papers_and_reads_width_over_width_and_rows_for_unrelated_states() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(20, 6), torch.randn(20, 4)
    assert linear_cka(one, other) == pytest.approx(kernel_cka(one, other), rel=1e-9)
    one, other = torch.randn(175, 576), torch.randn(175, 576)
    assert linear_cka(one, other) == pytest.approx(576 / (576 + 175), abs=0.01)


@pytest.mark.parametrize(("rows", "width"), [(4, 3), (5, 40), (20, 6), (175, 576)])
def test_the_debiased_cka_is_that_of_unbiased_hsic_and_blind_to_rotation_and_scale(
    rows: int, width: int
) -> None:
    torch.manual_seed(rows)
    one = torch.randn(rows, width, dtype=torch.float64)
    other = one[:, :3] ** 2 + 5 + torch.randn(rows, 3)
    assert debiased_cka(one, other) == pytest.approx(by_hsic(one, other), rel=1e-6, abs=1e-9)
    rotation = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))[0]
    assert debiased_cka(3 * one @ rotation + 5, other) == pytest.approx(debiased_cka(one, other), abs=1e-9)
    assert debiased_cka(one, -2 * one @ rotation) == pytest.approx(1)
    assert np.isnan(debiased_cka(one, torch.full((rows, 4), 0.1)))


@pytest.mark.parametrize(("rows", "width"), [(8, 4), (8, 512), (40, 40), (175, 576), (100, 2048)])
def test_unrelated_states_are_at_zero_on_average_whatever_their_width(rows: int, width: int) -> None:
    torch.manual_seed(0)
    found = [debiased_cka(torch.randn(rows, width), torch.randn(rows, width)) for _ in range(40)]
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / 40**0.5)
    assert abs(np.mean(found)) < 0.2 / (rows / 8)


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


def test_layers_are_one_for_the_base_and_less_where_weights_have_changed(
    learner: Learner, prompts: Path, tmp_path: Path
) -> None:
    probe = make_probe("layers", {"prompts": str(prompts)}, None)
    base = probe.measure(learner, "00-base", "00-base", tmp_path / "probe")
    assert [part.name for part in base] == ["layer 0", "layer 1", "layer 2"]
    assert [part.value for part in base] == pytest.approx([1, 1, 1])
    texts = [json.loads(line)["prompt"] for line in prompts.read_text().splitlines()]
    before = [states_alone(learner, texts, layer) for layer in range(3)]
    with torch.no_grad():
        weight = learner.model.model.layers[1].mlp.down_proj.weight
        weight += torch.randn_like(weight)
    after = probe.measure(learner, "01-x", "00-base", tmp_path / "probe")
    now = [states_alone(learner, texts, layer) for layer in range(3)]
    wanted = [by_hsic(*pair) for pair in zip(now, before, strict=True)]
    assert [part.value for part in after] == pytest.approx(wanted, abs=1e-4)
    biased = [kernel_cka(*pair) for pair in zip(now, before, strict=True)]
    assert [part.more["biased"] for part in after] == pytest.approx(biased, abs=1e-5)
    assert [part.value for part in after[:2]] == pytest.approx([1, 1])
    assert after[2].value is not None
    assert after[2].value < 0.99
    with pytest.raises(UserError, match="four prompts or more"):
        make_probe("layers", {"prompts": str(prompts), "limit": 3}, None)


def test_a_layer_that_says_the_same_of_all_prompts_is_null(learner: Learner, tmp_path: Path) -> None:
    path = tmp_path / "alike.json"
    path.write_text(json.dumps([{"prompt": f"{word}!"} for word in ("cat", "dog", "sea", "red")]))
    first, *others = make_probe("layers", {"prompts": str(path)}, None).measure(
        learner, "00-base", "00-base", tmp_path / "probe"
    )
    assert (first.value, first.reason) == (
        None,
        "all prompts have the same state there, or all states are equally far apart",
    )
    assert [part.value for part in others] == pytest.approx([1, 1])


def test_layers_of_a_model_without_numbers_are_null(broken: Learner, prompts: Path, tmp_path: Path) -> None:
    probe = make_probe("layers", {"prompts": str(prompts)}, None)
    *before, last = probe.measure(broken, "00-base", "00-base", tmp_path / "probe")
    assert [part.value for part in before] == pytest.approx([1, 1])
    assert (last.value, last.reason) == (None, NOT_FINITE)


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
