"""`fmn embed`: vectors of a file, a measurement, a tuning and an export, from the command line and Python."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from scipy.stats import spearmanr

import forgetmenot as fmn
from forgetmenot.cli import main
from forgetmenot.embedding import contrastive
from forgetmenot.embedding.contrastive import PAPER, backward
from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.senteval import STS
from forgetmenot.embedding.vectors import embed
from forgetmenot.errors import UserError
from forgetmenot.trials.embed import settings_of
from forgetmenot.trials.tune_embeddings import TuneSettings
from tests.embedding.conftest import write_sts
from tests.probes.conftest import load

SENTENCES = ["A cat", "It is red.", "A cat", "hound of the sea"]
WORDS = ("cat", "hound", "red", "rose", "ship", "sea")


def command(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    path = tmp_path / "sentences.txt"
    path.write_text("".join(f"{text}\n" for text in SENTENCES), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of data: STS13, STS-B, MRPC and MNLI in small."""
    folder = tmp_path / "data"
    pairs = [
        (f"A {one}", f"The {other}", str((i * j) % 6))
        for i, one in enumerate(WORDS)
        for j, other in enumerate(WORDS)
    ]
    write_sts(folder, "sts13", dict.fromkeys(STS["sts13"], pairs))
    rows: dict[str, list[dict[str, Any]]] = {
        "stsb": [
            {"idx": k, "sentence1": a, "sentence2": b, "label": float(s)} for k, (a, b, s) in enumerate(pairs)
        ],
        "mrpc": [
            {"idx": k, "sentence1": a, "sentence2": b, "label": k % 2} for k, (a, b, _) in enumerate(pairs)
        ],
        "mnli": [
            {"idx": 3 * k + m, "premise": f"A {word} here", "hypothesis": f"{word} {m}", "label": m}
            for k, word in enumerate(WORDS)
            for m in range(3)
        ],
    }
    for name, some in rows.items():
        (folder / "glue" / name).mkdir(parents=True)
        for split in ("train", "validation_matched" if name == "mnli" else "validation"):
            pd.DataFrame(some).to_parquet(folder / "glue" / name / f"{split}-0.parquet")
    return folder


@pytest.mark.parametrize("suffix", [".safetensors", ".npy", ".parquet"])
def test_vectors_are_those_of_the_sentences_in_their_order(
    tiny_llama: Path, sentences: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"vectors{suffix}"
    assert command("embed", tiny_llama, sentences, out, "--set", "demonstration=opt-125m") == 0
    if suffix == ".safetensors":
        found = load_file(out)["embeddings"]
    elif suffix == ".npy":
        found = np.load(out)
    else:
        table = pd.read_parquet(out)
        assert table["sentence"].tolist() == SENTENCES
        found = np.stack(table["embedding"].tolist())
    settings = EmbeddingSettings.model_validate({"demonstration": "opt-125m"})
    np.testing.assert_allclose(found, embed(load(tiny_llama), SENTENCES, settings).numpy(), atol=2e-5)
    about = json.loads((tmp_path / "vectors.json").read_text())
    assert about["settings"]["demonstration"] == ["A man is smoking.", "Smoking"]
    assert about["text"].endswith('This sentence : "…" means in one word:"')
    assert (about["n"], about["width"], about["precision"]) == (4, 32, "fp32")
    assert str(out) in capsys.readouterr().out


def test_a_column_of_numbers_holds_no_sentences(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"id": 7, "text": "A cat"}\n')
    with pytest.raises(UserError, match=r"line 1: the value of 'id' is no text \(given: 7\)"):
        fmn.embed(str(tiny_llama), tmp_path / "s.jsonl", tmp_path / "out.npy", column="id")


def test_a_table_needs_the_column_of_its_sentences(tiny_llama: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "rows.csv", tmp_path / "out.npy"
    table.write_text("id,text\n1,A cat\n2,It is red.\n")
    fmn.embed(str(tiny_llama), table, out, column="text", settings={"pooling": "mean"})
    wanted = embed(load(tiny_llama), SENTENCES[:2], EmbeddingSettings(pooling="mean")).numpy()
    np.testing.assert_allclose(np.load(out), wanted, atol=2e-5)
    with pytest.raises(UserError, match=r"name the column of sentences in .*: id, text"):
        fmn.embed(str(tiny_llama), table, out)
    with pytest.raises(UserError, match=r"has no column 'txt'.*text"):
        fmn.embed(str(tiny_llama), table, out, column="txt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.txt", "out.npy"], "there is no file 'x.txt'"),
        (["s.txt", "out.bin"], "out.bin: vectors are written as .safetensors, .npy, .parquet"),
        (["s.txt", "mine.npy"], "mine.npy is there, and `fmn embed` did not write it"),
        (["s.txt", "out.npy", "--set", "poling=mean"], "poling: there is no such key"),
        (["s.txt", "out.npy", "--set", "pooling=max"], "pooling"),
        (["s.txt", "out.npy", "--set", "tasks=glue4"], "tasks: it has no effect here; leave it out"),
        (["out", "--measure", "stsb", "--set", "evaluation.limit=3"], "evaluation.limit: it has no effect"),
        (["s.txt", "out.npy", "--set", "training.epochs=2"], "training.epochs: it has no effect here"),
        (
            ["s.txt", "out.npy", "--set", "pooling=mean", "--set", "demonstration=opt-125m"],
            "demonstration stands in front of the one-word prompt, which pooling: mean has not",
        ),
        (["s.txt", "out.npy", "--set", "demonstration=[a, ' ']"], "demonstration"),
        (["s.txt", "s.txt"], "s.txt holds the sentences; give another name"),
        (["s.txt", "out.npy", "--data-dir", "."], "--data-dir has no effect with FILE"),
        (["s.txt", "out.npy", "--column", "text"], "s.txt is a plain text and has none"),
        (["hole.txt", "out.npy"], "hole.txt, line 2: there is no sentence"),
        (["out"], "give one of FILE, --measure, --train, --export, not none"),
        (["s.txt", "out", "--train"], "not FILE and --train"),
        (["out", "--measure", "sts17"], "no set 'sts17'"),
        (["out", "--measure", "sts13"], "set data_dir to a folder that holds senteval/downstream/"),
        (["out", "--export", "--demonstrations", "paper"], "--demonstrations has no effect with --export"),
        (["out", "--train", "--set", "adapter.kind=full"], "embeddings are tuned by LoRA"),
        (["out", "--train", "--set", "adapter={kind: full}"], "embeddings are tuned by LoRA"),
        (["out", "--train", "--set", "method=replay"], "method: it has no effect here"),
        (["out", "--train", "--set", "training.epochs={mnli: 1}"], "tuning has no tasks; give a number"),
        (["out", "--train", "--set", "sources=nowhere.csv"], "'nowhere.csv' is neither mnli nor mnli-dev"),
    ],
)
def test_a_mistake_is_a_sentence(
    tiny_llama: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.txt").write_text("A cat\n")
    Path("hole.txt").write_text("A cat\n \nA dog\n")
    Path("mine.npy").write_text("mine")
    assert command("embed", tiny_llama, *arguments) == 2
    assert words in capsys.readouterr().err
    assert Path("mine.npy").read_text() == "mine"


def test_a_command_that_was_killed_while_it_wrote_can_be_given_again(
    tiny_llama: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "vectors.npy"
    fmn.embed(str(tiny_llama), sentences, out)
    wanted = np.load(out)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for first in (True, False):  # over vectors of before, and where there are none
        if first:
            sentences.write_text(sentences.read_text() + "A dog\n")
        else:
            out.unlink(missing_ok=True)
            out.with_suffix(".json").unlink()
        with monkeypatch.context() as now:
            now.setattr("numpy.save", killed)
            with pytest.raises(KeyboardInterrupt):
                fmn.embed(str(tiny_llama), sentences, out)
        assert not out.exists()  # vectors of other sentences never stand beside the new JSON
        fmn.embed(str(tiny_llama), sentences, out)
        assert len(np.load(out)) == 5
        np.testing.assert_allclose(np.load(out)[:4], wanted, atol=2e-5)


def test_vectors_of_another_kind_keep_what_is_said_of_them(
    tiny_llama: Path, sentences: Path, tmp_path: Path
) -> None:
    fmn.embed(str(tiny_llama), sentences, tmp_path / "v.parquet", settings={"pooling": "mean"})
    with pytest.raises(UserError, match=r"v\.parquet is there, and .*v\.json is about it"):
        fmn.embed(str(tiny_llama), sentences, tmp_path / "v.npy")
    assert json.loads((tmp_path / "v.json").read_text())["settings"]["pooling"] == "mean"


def test_sentences_without_numbers_are_named_and_nothing_is_written(
    tiny_llama: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflowing(*given: Any) -> Any:
        vectors = embed(*given)
        vectors[2, 1] = float("inf")
        return vectors

    monkeypatch.setattr("forgetmenot.trials.embed.vectors_of", overflowing)
    with pytest.raises(UserError, match=r"sentences.txt, sentence 3: the model's numbers are not finite"):
        fmn.embed(str(tiny_llama), sentences, tmp_path / "out.npy")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []


def test_a_measurement_is_spearmans_and_the_transfer_that_was_asked_for(
    tiny_llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    sets = "stsb,sts13,mrpc"
    assert command("embed", tiny_llama, out, "--measure", sets, "--data-dir", data) == 0
    found = json.loads((out / "embeddings.json").read_text())
    assert [one["name"] for one in found["similarity"]] == ["stsb", "sts13"]
    learner, gold, cosines = load(tiny_llama), [], []
    for i, one in enumerate(WORDS):
        for j, other in enumerate(WORDS):
            u, v = embed(learner, [f"A {one}", f"The {other}"], EmbeddingSettings()).double()
            cosines.append(float(u @ v / u.norm() / v.norm()))
            gold.append((i * j) % 6)
    assert found["similarity"][0]["value"] == pytest.approx(spearmanr(cosines, gold).statistic, abs=5e-3)
    assert found["similarity"][0]["n"] == 36
    assert found["similarity"][1]["n"] == 108
    assert set(found["similarity"][1]["parts"]) == {"FNWN", "headlines", "OnWN"}
    assert found["mean"] == pytest.approx(np.mean([one["value"] for one in found["similarity"]]))
    assert [one["name"] for one in found["transfer"]] == ["mrpc"]
    said = capsys.readouterr().out
    assert "STS13" in said
    assert "Mean of the 2 similarities" in said


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        (["--measure", "sts13"], "sets"),
        (["--measure", "stsb", "--set", "limit=5"], "settings"),
        (["--measure", "stsb", "--set", "training.precision=bf16"], "training"),
    ],
)
def test_figures_of_another_request_are_not_replaced(
    tiny_llama: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    other: list[str],
    differing: str,
) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # the same again writes over its own
        assert command("embed", tiny_llama, out, "--measure", "stsb", "--data-dir", data) == 0
    kept = (out / "embeddings.json").read_bytes()
    assert command("embed", tiny_llama, out, *other, "--data-dir", data) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"holds figures already, made otherwise ({differing})" in said
    assert command("embed", "quickstart-small", out, "--measure", "stsb", "--data-dir", data) == 2
    assert "made otherwise (model)" in " ".join(capsys.readouterr().err.split())
    assert (out / "embeddings.json").read_bytes() == kept


def test_a_group_leaves_out_sick_where_its_file_is_missing_and_says_so(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [("A cat", "A dog", "2"), ("red sea", "blue sea", "3.5"), ("it", "it", "5")]
    for name, parts in STS.items():
        write_sts(tmp_path, name, dict.fromkeys(parts, pairs))
    folder = tmp_path / "senteval" / "downstream" / "STS" / "STSBenchmark"
    folder.mkdir()
    lines = [f"g\tf\t2012\t{k}\t{score}\t{a}\t{b}\n" for k, (a, b, score) in enumerate(pairs)]
    (folder / "sts-test.csv").write_text("".join(lines))
    out = tmp_path / "out"
    assert command("embed", tiny_llama, out, "--measure", "sts", "--data-dir", tmp_path) == 0
    found = json.loads((out / "embeddings.json").read_text())
    assert [one["name"] for one in found["similarity"]] == [*STS, "stsb-test"]
    assert found["left_out"] == {"sick-r": "SICK-R is left out: senteval/downstream/SICK is not in data_dir."}
    assert "SICK-R is left out" in " ".join(capsys.readouterr().out.split())
    assert command("embed", tiny_llama, out, "--measure", "sick-r", "--data-dir", tmp_path) == 2
    assert "The set 'sick-r' is read from SentEval's files" in capsys.readouterr().err


def test_the_best_demonstration_is_searched_and_put_in_front(
    tiny_llama: Path, data: Path, tmp_path: Path
) -> None:
    candidates = tmp_path / "candidates.jsonl"
    rows = [{"sentence": "It rains.", "word": "Rain"}, {"sentence": "A ship", "word": "Sea"}]
    candidates.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments: dict[str, Any] = {"sets": "stsb", "data_dir": data}
    results = fmn.measure_embeddings(
        str(tiny_llama), tmp_path / "out", demonstrations=candidates, **arguments
    )
    first, second = results.found["demonstration_search"]
    assert first["dev"] >= second["dev"]
    assert results.found["settings"]["demonstration"] == [first["sentence"], first["word"]]
    assert results.found["similarity"][0]["value"] == first["dev"]
    with pytest.raises(UserError, match="--demonstrations is for the one-word prompt"):
        fmn.measure_embeddings(
            str(tiny_llama),
            tmp_path / "out",
            demonstrations="paper",
            settings={"pooling": "mean"},
            **arguments,
        )


def test_a_tuning_is_measured_before_and_after_and_exported(
    tiny_llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    small = ["training.batch_size=3", "training.epochs=2", "adapter.rank=4", "training.learning_rate=0.01"]
    given = [part for one in small for part in ("--set", one)]
    for _ in range(2):  # the same again writes over its own
        assert command("embed", tiny_llama, out, "--train", "--data-dir", data, *given) == 0
    found = json.loads((out / "embeddings.json").read_text())
    assert (found["tuning"]["triples"], found["tuning"]["steps"]) == (6, 4)
    assert len(found["tuning"]["losses"]) == 4
    change = found["similarity"][0]["value"] - found["before"]["value"]
    assert found["difference"]["difference"] == pytest.approx(change, abs=1e-9)
    low, high = found["difference"]["interval"]
    assert low < change < high
    assert found["merged_cosine"] == pytest.approx(1, abs=1e-5)
    assert "before" in capsys.readouterr().out
    assert (out / "adapter" / "adapter_config.json").is_file()

    for other in (["--export"], ["--measure", "stsb", "--data-dir", data]):
        capsys.readouterr()
        assert command("embed", tiny_llama, out, *other) == 2
        assert "holds a tuning already, which would be lost" in " ".join(capsys.readouterr().err.split())
    for changed in ("temperature=0.1", "training.epochs=3", "adapter.rank=2", "seed=1"):
        anew = [*given, "--set", changed]
        assert command("embed", tiny_llama, out, "--train", "--data-dir", data, *anew) == 2
        assert "holds a tuning already, made otherwise" in " ".join(capsys.readouterr().err.split())
    assert json.loads((out / "embeddings.json").read_text()) == found

    exported = out / "sentence-transformers"
    model = AutoModelForCausalLM.from_pretrained(exported, dtype="float32", output_hidden_states=True)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    one, other = (
        model(**tokenizer(text, return_tensors="pt")).hidden_states[-1][0, -1]
        for text in ("A cat", "The sea")
    )
    cosine = float((one @ other / one.norm() / other.norm()).detach())
    again = fmn.measure_embeddings(str(exported), tmp_path / "again", sets="stsb", data_dir=data).found
    assert again["similarity"][0]["value"] == pytest.approx(found["similarity"][0]["value"], abs=5e-3)
    with pytest.raises(UserError, match=r"pooling: .* writes the prompt itself; leave it out"):
        fmn.measure_embeddings(str(exported), tmp_path / "x", sets="stsb", settings={"pooling": "prompt"})
    base = embed(load(tiny_llama), ["A cat", "The sea"], EmbeddingSettings())
    assert abs(cosine - float(base[0] @ base[1] / base[0].norm() / base[1].norm())) > 1e-3


def test_an_export_is_written_for_sentence_transformers(
    tiny_llama: Path, tiny_tasks: dict[str, Path], tmp_path: Path
) -> None:
    path = fmn.export_embeddings(str(tiny_llama), tmp_path / "out", settings={"pooling": "mean"})
    assert json.loads((path / "embedding.json").read_text())["pooling"] == "mean"
    assert (path / "modules.json").is_file()
    with pytest.raises(UserError, match="exported for sentence embeddings"):
        fmn.run({"model": str(path), "tasks": str(tiny_tasks["animal"]), "output": str(tmp_path / "run")})
    with pytest.raises(UserError, match="holds what `fmn embed` wrote"):
        fmn.run({"output": str(tmp_path / "out")})


def test_opt_125m_on_stsb_test_is_as_published(tmp_path: Path) -> None:
    """67.80, by the code's template and its demonstration for this size, in fp32."""
    import os

    folder, files = os.environ.get("FORGETMENOT_OPT_125M"), os.environ.get("FORGETMENOT_SENTEVAL")
    if not folder or not files:
        pytest.skip(
            "needs the weights of facebook/opt-125m and SentEval's files: set FORGETMENOT_OPT_125M and "
            "FORGETMENOT_SENTEVAL to their folders"
        )
    results = fmn.measure_embeddings(
        {"name": folder, "allow_bin": True},
        tmp_path / "out",
        sets="stsb-test",
        data_dir=files,
        settings={"demonstration": "opt-125m", "training.precision": "fp32"},
    )
    assert 100 * results.found["similarity"][0]["value"] == pytest.approx(67.80, abs=0.05)


def test_a_part_of_the_adapter_leaves_the_papers_rank() -> None:
    used = ("adapter", "model", "training")
    given = {"adapter": {"dropout": 0.05}}
    config, _ = settings_of(TuneSettings, {"model": "quickstart", **PAPER}, given, used)
    assert config.adapter.dropout == 0.05
    assert config.adapter.rank == PAPER["adapter.rank"] == 64


def test_a_tuning_that_was_cut_off_goes_on_and_ends_the_same(
    tiny_llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "training.batch_size": 3,
        "training.epochs": 2,
        "training.save_every": 1,
        "adapter.rank": 4,
        "training.learning_rate": 0.01,
    }

    def tuned(name: str, **more: Any) -> dict[str, Any]:
        found = fmn.tune_embeddings(
            str(tiny_llama), tmp_path / name, data_dir=data, settings={**settings, **more}
        ).found
        return {**found, "tuning": {**found["tuning"], "training": None}}

    whole = tuned("whole")
    made: list[int] = []

    def cut(learner: Any, batch: Any, temperature: float, seed: int) -> float:
        made.append(seed)
        if len(made) == 3:
            raise RuntimeError("the machine is gone")
        return backward(learner, batch, temperature, seed)

    monkeypatch.setattr(contrastive, "backward", cut)
    with pytest.raises(RuntimeError, match="the machine is gone"):
        tuned("cut")
    made.extend([0] * 10)
    (own := tmp_path / "cut" / "stages" / "mine.txt").write_text("kept")
    assert tuned("cut", **{"training.save_every": 3}) == whole
    assert made[-2:] == [*made[2:3], made[2] + 1], "steps 3 and 4 alone are made"
    assert list(own.parent.iterdir()) == [own], "what is not ours stays"

    made.clear()
    with pytest.raises(RuntimeError, match="the machine is gone"):
        tuned("other")
    made.extend([0] * 10)
    other = tuned("other", temperature=0.5)  # another loss begins anew
    assert len(made) == 3 + 10 + 4
    assert other["tuning"]["steps"] == 4
    assert not (tmp_path / "other" / "stages").exists()
    assert other["tuning"]["losses"][0] != whole["tuning"]["losses"][0]
