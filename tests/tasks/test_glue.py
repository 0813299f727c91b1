"""GLUE reads alike from every layout that people have, and its traps are handled."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from forgetmenot.errors import UserError
from forgetmenot.tasks import Task, fingerprint, glue, load_tasks

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
needs_data = pytest.mark.skipif(
    not (SHARED / "data" / "glue").is_dir(), reason="the original GLUE files are not on this machine"
)

# Per task: the folder of GLUE's own files, the name of its scored file, its header ("" for none), one
# line, and what the same row is on the hub; {} stands for the row's number.
OWN: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "sst2": ("SST-2", "dev.tsv", "sentence\tlabel", "fun {} \t1", {"sentence": "fun {} ", "label": 1}),
    "mrpc": (
        "MRPC",
        "dev.tsv",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        '0\t11\t12\t" He said {}\tHe left .',
        {"sentence1": '" He said {}', "sentence2": "He left .", "label": 0},
    ),
    "cola": ("CoLA", "dev.tsv", "", "gj04\t0\t*\tThey {} it.", {"sentence": "They {} it.", "label": 0}),
    "mnli": (
        "MNLI",
        "dev_matched.tsv",
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t1n\tfiction\t( a )\t( b )\t(A)\t(B)\tA {}.\tB.\tneutral\tcontradiction",
        {"premise": "A {}.", "hypothesis": "B.", "label": 2},
    ),
    "mnli_mismatched": (
        "MNLI",
        "dev_mismatched.tsv",
        "index\tsentence1\tsentence2\tgold_label",
        "0\tA {}.\tB.\tneutral",
        {"premise": "A {}.", "hypothesis": "B.", "label": 1},
    ),
    "qnli": (
        "QNLI",
        "dev.tsv",
        "index\tquestion\tsentence\tlabel",
        "0\tWho {}?\tShe.\tnot_entailment",
        {"question": "Who {}?", "sentence": "She.", "label": 1},
    ),
    "rte": (
        "RTE",
        "dev.tsv",
        "index\tsentence1\tsentence2\tlabel",
        "0\tIt {}.\tNo.\tentailment",
        {"sentence1": "It {}.", "sentence2": "No.", "label": 0},
    ),
    "qqp": (
        "QQP",
        "dev.tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "0\t1\t2\tWhy {}?\tHow?\t1",
        {"question1": "Why {}?", "question2": "How?", "label": 1},
    ),
    "wnli": (
        "WNLI",
        "dev.tsv",
        "index\tsentence1\tsentence2\tlabel",
        "0\tIt {}.\tNo.\t1",
        {"sentence1": "It {}.", "sentence2": "No.", "label": 1},
    ),
    "stsb": (
        "STS-B",
        "dev.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tnews\tf\t2012\t1\tnone\tnone\tA {}.\tB.\t3.800",
        {"sentence1": "A {}.", "sentence2": "B.", "label": 3.8},
    ),
}
TRAIN_ROWS, SCORE_ROWS = 30, 7


def write_own(
    name: str, root: Path, train: int = TRAIN_ROWS, score: int = SCORE_ROWS, extra: str = ""
) -> Path:
    """Write GLUE's own two files of a task; `extra` is added to the scored one."""
    folder, dev, header, line, _ = OWN[name]
    (root / folder).mkdir(parents=True, exist_ok=True)
    head = f"{header}\n" if header else ""
    for file, first, rows, tail in (("train.tsv", 0, train, ""), (dev, 100, score, extra)):
        body = "".join(f"{line.format(first + row)}\n" for row in range(rows))
        (root / folder / file).write_text(head + body + tail, encoding="utf-8")
    return root / folder


def as_on_the_hub(name: str) -> datasets.DatasetDict:
    """The same rows in the hub's columns, classes and split names."""
    task, row = glue.GLUE[name], OWN[name][4]
    label = datasets.Value("float32") if name == "stsb" else datasets.ClassLabel(names=list(task.labels))
    features = datasets.Features({key: datasets.Value("string") for key in row} | {"label": label})
    splits = {
        split: [
            {key: value.format(number) if key != "label" else value for key, value in row.items()}
            for number in rows
        ]
        for split, rows in (("train", range(TRAIN_ROWS)), (task.validation, range(100, 100 + SCORE_ROWS)))
    }
    splits["test"] = [row | {"label": -1}]
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_list(rows, features) for split, rows in splits.items()}
    )


def load(name: str, data_dir: Path | None) -> Task:
    [task] = load_tasks([name], data_dir)
    return task


@pytest.mark.parametrize("name", OWN)
def test_every_layout_gives_the_same_task(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own(name, tmp_path / "own" / "glue")
    hub, config = as_on_the_hub(name), glue.GLUE[name].config
    hub.save_to_disk(str(tmp_path / "saved" / config))
    for split, rows in hub.items():
        file = tmp_path / "parquet" / "glue" / config / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(str(file))
    monkeypatch.setattr(glue, "HUB", _hub_folder(tmp_path / "parquet" / "glue", config))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    own = load(name, tmp_path / "own")
    others = [load(name, tmp_path / "saved"), load(name, tmp_path / "parquet"), load(name, None)]
    assert [fingerprint(other) for other in others] == [fingerprint(own)] * 3
    assert len({task.origin for task in (own, *others)}) == 4
    assert glue.REVISION in others[-1].origin

    assert (len(own.train), len(own.select), len(own.score)) == (27, 3, 7)
    first, row = own.score[0], OWN[name][4]
    assert first.id == "score-0"
    assert first.fields == {key: value.format(100).rstrip() for key, value in row.items() if key != "label"}
    if name == "stsb":
        assert (first.label, first.target) == ("4", 3.8)
    else:
        assert (first.label, first.target) == (own.labels[row["label"]], None)


def _hub_folder(folder: Path, config: str) -> str:
    """Add the card by which `datasets` finds a config's files, as the hub's own card does."""
    splits = [file.name.split("-")[0] for file in (folder / config).glob("*.parquet")]
    card = ["---", "configs:", f"- config_name: {config}", "  data_files:"]
    card += [f"  - split: {split}\n    path: {config}/{split}-*" for split in splits]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return str(folder)


def test_the_folder_may_be_glue_itself_and_lower_case(tmp_path: Path) -> None:
    write_own("rte", tmp_path).rename(tmp_path / "rte")
    assert load("rte", tmp_path).origin == str(tmp_path / "rte")


def test_labels_metrics_and_further_metrics() -> None:
    accuracy = [name for name, task in glue.GLUE.items() if task.metric == "accuracy"]
    assert accuracy == [name for name in OWN if name != "stsb"]
    further = {name: task.further_metrics for name, task in glue.GLUE.items() if task.further_metrics}
    assert further == {"mrpc": ("f1",), "cola": ("matthews",), "qqp": ("f1",), "stsb": ("pearson",)}
    assert glue.GLUE["mrpc"].labels[1] == "equivalent"  # the positive class of F1
    assert glue.GLUE["wnli"].labels == glue.GLUE["rte"].labels[::-1]


@pytest.mark.parametrize(
    ("score", "label"),
    [("0.0", "0"), ("0.5", "1"), ("2.5", "3"), ("2.499", "2"), ("5.000", "5"), ("4.5", "5")],
)
def test_similarity_rounds_half_up_to_a_label(tmp_path: Path, score: str, label: str) -> None:
    write_own("stsb", tmp_path, score=0, extra=f"0\tn\tf\t2012\t1\tn\tn\tA.\tB.\t{score}\n")
    [example] = load("stsb", tmp_path).score
    assert (example.label, example.target) == (label, float(score))


def test_microsofts_mrpc_is_scored_on_its_test_part_and_says_so(tmp_path: Path) -> None:
    folder = write_own("mrpc", tmp_path)
    (folder / "train.tsv").rename(folder / "msr_paraphrase_train.txt")
    (folder / "dev.tsv").rename(folder / "msr_paraphrase_test.txt")
    task = load("mrpc", tmp_path)
    assert len(task.score) == SCORE_ROWS
    assert "Microsoft" in task.notes[0]
    assert task.score[0].fields["sentence1"] == '" He said 100'


def test_broken_lines_of_qqp_are_left_out_and_counted(tmp_path: Path) -> None:
    write_own("qqp", tmp_path, extra="7\t1\t2\tcut in two by a line end\n")
    task = load("qqp", tmp_path)
    assert len(task.score) == SCORE_ROWS
    assert task.notes[0].startswith("1 broken lines of qqp were left out")


WRONG = [
    (
        "mnli",
        "0\t1\t1n\tf\t(a)\t(b)\t(A)\t(B)\tA.\tB.\tneutral\t-\n",
        ["dev_matched.tsv, line 9", "'-'", "leave them out of the file"],
    ),
    ("sst2", "hidden\t-1\n", ["dev.tsv, line 9", "-1", "hidden"]),
    ("sst2", "two columns are missing\n", ["dev.tsv, line 9", "1 cells where the header has 2"]),
    ("cola", "gj04\t2\t\tIt.\n", ["dev.tsv, line 8", "'2'", "unacceptable, acceptable"]),
    ("stsb", "0\tn\tf\t2012\t1\tn\tn\tA.\tB.\t-1.0\n", ["dev.tsv, line 9", "hidden"]),
    ("stsb", "0\tn\tf\t2012\t1\tn\tn\tA.\tB.\t5.1\n", ["dev.tsv, line 9", "'5.1'", "from 0 to 5"]),
    ("stsb", "0\tn\tf\t2012\t1\tn\tn\tA.\tB.\tnan\n", ["dev.tsv, line 9", "'nan'"]),
]


@pytest.mark.parametrize(("name", "line", "parts"), WRONG)
def test_a_wrong_row_is_named(tmp_path: Path, name: str, line: str, parts: list[str]) -> None:
    write_own(name, tmp_path, extra=line)
    with pytest.raises(UserError) as error:
        load(name, tmp_path)
    assert all(part in str(error.value) for part in parts), error.value


def test_hidden_labels_on_the_hub_are_refused(tmp_path: Path) -> None:
    hub = as_on_the_hub("sst2")
    hub["validation"] = hub["test"]
    hub.save_to_disk(str(tmp_path / "sst2"))
    with pytest.raises(UserError, match=r"split validation, row 1: label is -1: .*hidden"):
        load("sst2", tmp_path)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    write_own("rte", tmp_path, score=0)
    with pytest.raises(UserError, match=r"dev\.tsv has no rows"):
        load("rte", tmp_path)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = write_own("sst2", tmp_path)
    (folder / "dev.tsv").write_text("index\tsentence\n0\tfun\n")  # the layout of GLUE's test files
    with pytest.raises(UserError, match=r"dev\.tsv has no column 'label'; it has index, sentence"):
        load("sst2", tmp_path)


def test_missing_data_says_what_was_looked_for(tmp_path: Path) -> None:
    (write_own("mrpc", tmp_path / "glue") / "dev.tsv").unlink()
    with pytest.raises(UserError) as error:
        load("mrpc", tmp_path)
    for part in (
        str(tmp_path / "glue" / "MRPC"),
        "dev.tsv",
        "msr_paraphrase_test.txt",
        "parquet",
        "save_to_disk",
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match="nowhere does not exist"):
        load("mrpc", tmp_path / "nowhere")


def test_a_hundred_thousand_rows_load_in_seconds(tmp_path: Path) -> None:
    write_own("mnli", tmp_path, train=100_000)
    start = time.process_time()
    assert len(load("mnli", tmp_path).train) == 99_000
    assert time.process_time() - start < 6  # about 1.3 on a slow core; a quadratic step would take minutes


COUNTS = {"sst2": (67_349, 872), "mrpc": (3_668, 408), "cola": (8_551, 1_043), "mnli": (3_000, 9_815)}
COUNTS["stsb"] = (5_749, 1_500)


@needs_data
@pytest.mark.parametrize("name", COUNTS)
def test_the_originals_have_all_their_rows(name: str) -> None:
    task = load(name, SHARED / "data")
    train, score = COUNTS[name]
    assert (len(task.train) + len(task.select), len(task.score)) == (train, score)
    assert len(task.select) == min(1000, train // 10)
    assert len({example.id for example in [*task.train, *task.select, *task.score]}) == train + score
    for example in [*task.train, *task.select, *task.score]:
        assert example.label in task.labels
        assert all(text == text.rstrip() for text in example.fields.values())
    assert Counter(example.label for example in task.score).keys() == set(task.labels)


@needs_data
def test_unbalanced_quotes_of_mrpc_stay() -> None:
    task = load("mrpc", SHARED / "data")
    assert task.score[0].fields["sentence2"].startswith('" The foodservice pie business')
    odd = [e for e in task.score if any(text.count('"') % 2 for text in e.fields.values())]
    assert len(odd) > 10


@needs_data
def test_repeats_and_leaks_of_cola_are_said() -> None:
    notes = load("cola", SHARED / "data").notes
    assert notes[0] == "19 of 8,551 examples of train repeat an earlier one word for word."
    assert notes[1] == "16 of 1,043 examples of score also occur in train, word for word."
