"""SentEval's files on cases made by hand and as they are; Spearman against SciPy and by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.senteval import STS, Pairs, has_pairs, read_pairs
from forgetmenot.embedding.similarity import CONSTANT, NOT_FINITE, cosines, cosines_of, similarity
from forgetmenot.embedding.vectors import embed
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from tests.embedding.conftest import write_sts

ROWS = [("A cat", "A dog", "1.5"), ("no score", "here", ""), ('a "b', "c\x85d", "4"), ("it", "it", "5.000")]


def test_pairs_without_a_score_do_not_count_and_quotes_are_text(tmp_path: Path) -> None:
    parts = {part: ROWS if part == "OnWN" else ROWS[:1] for part in STS["sts13"]}
    write_sts(tmp_path, "sts13", parts)
    found = read_pairs("sts13", tmp_path)
    assert found.first == ["A cat", "A cat", "A cat", 'a "b', "it"]
    assert found.second == ["A dog", "A dog", "A dog", "c\x85d", "it"]
    assert found.gold.tolist() == [1.5, 1.5, 1.5, 4, 5]
    assert found.parts.tolist() == ["FNWN", "headlines", "OnWN", "OnWN", "OnWN"]


def test_stsb_and_sick_have_their_own_columns(tmp_path: Path) -> None:
    stsb, sick = tmp_path / "STS" / "STSBenchmark", tmp_path / "SICK"
    stsb.mkdir(parents=True)
    sick.mkdir()
    (stsb / "sts-test.csv").write_text("genre\tfile\t2012\t0024\t2.500\tone\tother\tsource\n")
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    (sick / "SICK_test_annotated.txt").write_text(f"{header}6\tone\tother\t3.3\tNEUTRAL\n")
    (stsb / "sts-dev.csv").write_text("genre\tfile\t2012\t0024\t1.5\tone\tother\n")
    for name, gold in (("stsb-test", 2.5), ("sick-r", 3.3), ("stsb", 1.5)):
        pairs = read_pairs(name, tmp_path)
        assert (pairs.first, pairs.second, pairs.gold.tolist()) == (["one"], ["other"], [gold])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (("STS.gs.OnWN.txt", "x\n\n4\n5\n"), r"STS.gs.OnWN.txt, line 1: the score 'x' is no number"),
        (("STS.gs.OnWN.txt", "1\n\n4\nnan\n"), r"line 4: the score 'nan' is no number"),
        (("STS.gs.OnWN.txt", "1\n"), r"has 1 lines and .*STS.input.OnWN.txt 4; they must be as many"),
        (("STS.input.OnWN.txt", "one\na\tb\na\tb\na\tb\n"), r"STS.input.OnWN.txt, line 1: two sentences"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, damage: tuple[str, str], words: str) -> None:
    folder = write_sts(tmp_path, "sts13", dict.fromkeys(STS["sts13"], ROWS))
    (folder / damage[0]).write_text(damage[1])
    with pytest.raises(UserError, match=words):
        read_pairs("sts13", tmp_path)


def test_files_without_a_pair_are_said(tmp_path: Path) -> None:
    write_sts(tmp_path, "sts13", dict.fromkeys(STS["sts13"], ()))
    with pytest.raises(UserError, match=r"The set 'sts13' has no pair with a score in .*downstream"):
        read_pairs("sts13", tmp_path)
    for name, file in (("stsb-test", "sts-test.csv"), ("stsb", "sts-dev.csv")):
        (folder := tmp_path / name / "STS" / "STSBenchmark").mkdir(parents=True)
        (folder / file).write_text("")
        with pytest.raises(UserError, match=f"The set '{name}' has no pair with a score"):
            read_pairs(name, tmp_path / name)


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    folder = write_sts(tmp_path, "sts13", {**dict.fromkeys(STS["sts13"], ROWS[:1]), "OnWN": ROWS})
    plain = read_pairs("sts13", tmp_path)
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8")
        file.write_bytes(text.replace("from somewhere\tand there", "").replace("\t\n", "\r\n").encode())
    found = read_pairs("sts13", tmp_path)
    assert (found.first, found.second) == (plain.first, plain.second)
    assert found.gold.tolist() == plain.gold.tolist()


def test_files_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set 'sts12' is read from SentEval's files: set data_dir"):
        read_pairs("sts12", tmp_path)
    write_sts(tmp_path, "sts13", {"FNWN": ROWS})
    assert [has_pairs(name, tmp_path) for name in ("stsb", "sts13", "sts12", "sick-r")] == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(UserError, match=r"STS.input.headlines.txt cannot be read"):
        read_pairs("sts13", tmp_path)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("sts12", 3108),
        ("sts13", 1500),
        ("sts14", 3750),
        ("sts15", 3000),
        ("sts16", 1186),
        ("stsb-test", 1379),
        ("stsb", 1500),
    ],
)
def test_the_real_sets_have_as_many_pairs_as_their_papers_say(shared: Path, name: str, count: int) -> None:
    pairs = read_pairs(name, shared / "data")
    assert len(pairs.gold) == len(pairs.first) == len(pairs.second) == count
    assert 0 <= pairs.gold.min() < pairs.gold.max() <= 5


def test_all_is_one_correlation_over_the_pairs_of_all_files() -> None:
    draw = np.random.default_rng(0)
    gold, parts = draw.integers(6, size=90).astype(float), np.repeat(["a", "b", "c"], 30)
    found = gold + draw.normal(size=90) + np.repeat([0, 5, 10], 30)
    pairs = Pairs("sts13", [""] * 90, [""] * 90, gold, parts)
    one = similarity(pairs, found)
    assert one.value == pytest.approx(float(spearmanr(found, gold).statistic), abs=1e-12)
    assert one.value == pytest.approx(np.corrcoef(rankdata(found), rankdata(gold))[0, 1], abs=1e-12)
    assert one.value is not None
    for name in "abc":
        within = float(spearmanr(found[parts == name], gold[parts == name]).statistic)
        assert one.parts[name] == pytest.approx(within, abs=1e-12)
        assert within > one.value + 0.2
    assert one.interval is not None
    assert one.interval[0] < one.value < one.interval[1]


def test_what_has_no_correlation_is_null_with_a_reason() -> None:
    pairs = Pairs("stsb", ["a", "b"], ["c", "d"], np.array([1.0, 2.0]), np.array(["dev", "dev"]))
    assert similarity(pairs, np.array([0.5, 0.5])).reason == CONSTANT
    assert similarity(pairs, np.array([0.5, np.nan])).reason == NOT_FINITE


def test_an_interval_with_an_undefined_resample_is_none() -> None:
    """Of two pairs every second resample draws one of them twice."""
    pairs = Pairs("stsb", ["a", "b"], ["c", "d"], np.array([1.0, 2.0]), np.array(["dev", "dev"]))
    found = similarity(pairs, np.array([0.1, 0.9]))
    assert found.value == pytest.approx(1)
    assert found.interval is None


def test_a_sample_is_evenly_spaced_over_the_set() -> None:
    texts = [str(k) for k in range(10)]
    pairs = Pairs("stsb", texts, texts, np.arange(10.0), np.array(["dev"] * 10))
    assert pairs.sample(4).first == ["0", "3", "6", "9"]
    assert pairs.sample(None) is pairs.sample(10) is pairs


def test_cosines_are_of_each_pair_and_no_sentence_is_computed_twice(learner: Learner) -> None:
    one = Pairs("stsb", ["A cat", "red"], ["A dog", "A cat"], np.array([1.0, 2.0]), np.array(["dev"] * 2))
    other = Pairs("sts12", ["red", "sea"], ["sea", "sea"], np.array([1.0, 2.0]), np.array(["x"] * 2))
    learner.reset_counts()
    found = cosines_of(learner, [one, other], EmbeddingSettings())
    together = learner.counts["computed"]
    learner.reset_counts()
    vectors = embed(learner, ["A cat", "red", "A dog", "sea"], EmbeddingSettings()).double()
    assert together == learner.counts["computed"]
    cat, red, dog, sea = vectors / vectors.norm(dim=1, keepdim=True)
    wanted = [torch.stack([cat @ dog, red @ cat]), torch.stack([red @ sea, sea @ sea])]
    for got, right in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, right.numpy(), atol=1e-12)
    assert cosines(vectors[:1], vectors[:1])[0] == pytest.approx(1)
