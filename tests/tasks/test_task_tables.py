"""Rows are read as they stand, and what is malformed is named by file and row."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetmenot.errors import UserError
from forgetmenot.tasks import tables
from forgetmenot.tasks.files import read_table
from forgetmenot.tasks.tables import Table, read_hub, read_saved, read_tsv


def rows_of(table: Table) -> list[dict[str, object]]:
    return [row for _, row in table.rows]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_tsv_takes_quotes_as_text(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", 'x\ty\n" open\tnever closed\nsay "hi\t"a" b\n')
    assert rows_of(read_table(file)) == [{"x": '" open', "y": "never closed"}, {"x": 'say "hi', "y": '"a" b'}]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "json"])
def test_a_bom_is_no_part_of_the_first_name(tmp_path: Path, suffix: str) -> None:
    body = {"tsv": "x\ty\n1\t2\n", "csv": "x,y\n1,2\n", "jsonl": '{"x": "1", "y": "2"}\n'}
    body["json"] = '[{"x": "1", "y": "2"}]'
    file = write(tmp_path / f"a.{suffix}", "\ufeff" + body[suffix])
    assert rows_of(read_table(file)) == [{"x": "1", "y": "2"}]


@pytest.mark.parametrize("inside", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_only_a_newline_ends_a_line(tmp_path: Path, inside: str) -> None:
    tsv = write(tmp_path / "a.tsv", f"x\ty\r\na{inside}b\t1\r\nc\t2\r\n")
    assert rows_of(read_table(tsv)) == [{"x": f"a{inside}b", "y": "1"}, {"x": "c", "y": "2"}]
    row = json.dumps({"x": f"a{inside}b"}, ensure_ascii=False)
    jsonl = write(tmp_path / "a.jsonl", f'{row}\n\n{{"x": "c"}}\n')
    assert rows_of(read_table(jsonl)) == [{"x": f"a{inside}b"}, {"x": "c"}]


@given(
    cells=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r")), min_size=2)
)
def test_any_text_survives_a_tsv(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    header = [f"c{i}" for i in range(len(cells))]
    file = tmp_path_factory.getbasetemp() / "any.tsv"
    write(file, "\t".join(header) + "\n" + "\t".join(cells) + "\n")
    assert rows_of(read_table(file)) == [dict(zip(header, cells, strict=True))]


def test_a_file_without_header_takes_the_names_given_and_one_with_header_keeps_its_own(
    tmp_path: Path,
) -> None:
    names = ("source", "label", "star", "sentence")
    bare = write(tmp_path / "bare.tsv", "gj04\t1\t\tIt rained.\n")
    headed = write(tmp_path / "headed.tsv", "label\tsentence\n1\tIt rained.\n")
    assert list(read_tsv(bare, names).rows) == [
        (1, {"source": "gj04", "label": "1", "star": "", "sentence": "It rained."})
    ]
    assert list(read_tsv(headed, names).rows) == [(2, {"label": "1", "sentence": "It rained."})]


def test_csv_cells_may_hold_commas_newlines_and_long_texts(tmp_path: Path) -> None:
    long = "word " * 100_000
    file = write(tmp_path / "a.csv", f'x,y\r\n"a, ""b""\r\nc",1\r\n{long},2\r\n')
    assert list(read_table(file).rows) == [(2, {"x": 'a, "b"\r\nc', "y": "1"}), (4, {"x": long, "y": "2"})]


def test_json_may_be_a_list_or_one_object_per_line(tmp_path: Path) -> None:
    as_list = write(tmp_path / "a.json", '[\n {"x": 1},\n {"x": 2}\n]')
    as_lines = write(tmp_path / "b.json", '{"x": 1}\n{"x": 2}\n')
    assert rows_of(read_table(as_list)) == rows_of(read_table(as_lines)) == [{"x": 1}, {"x": 2}]


def test_class_names_come_from_the_column_and_hidden_labels_stay(tmp_path: Path) -> None:
    features = datasets.Features(
        {"x": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"x": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    data.to_parquet(str(tmp_path / "a.parquet"))
    datasets.DatasetDict({"train": data}).save_to_disk(str(tmp_path / "saved"))
    wanted = [{"x": "a", "label": "yes"}, {"x": "b", "label": "no"}, {"x": "c", "label": -1}]
    assert rows_of(read_table(tmp_path / "a.parquet")) == wanted
    assert rows_of(read_saved(tmp_path / "saved", "train")) == wanted


def test_plain_parquet_keeps_its_values(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"x": ["a", None], "n": [1, 2], "turns": [[{"role": "user"}], []]}), tmp_path / "a.parquet"
    )
    table = read_table(tmp_path / "a.parquet")
    assert rows_of(table) == [
        {"x": "a", "n": 1, "turns": [{"role": "user"}]},
        {"x": None, "n": 2, "turns": []},
    ]
    assert table.at(2) == f"{tmp_path / 'a.parquet'}, row 2"


MALFORMED = [
    ("a.tsv", b"x\ty\n1\t2\n1\n", "line 3: 1 cells where the header has 2"),
    ("a.tsv", b"x\ty\n1\t2\t3\n", "line 2: 3 cells where the header has 2"),
    ("a.tsv", b"x\tx\n1\t2\n", "line 1: the column 'x' occurs twice"),
    ("a.tsv", b"x\ty\n1\tcaf\xe9\n", "line 2: this is not UTF-8"),
    ("a.csv", b"x,y\n1,2\n1,2,3\n", "line 3: 3 cells where the header has 2"),
    ("a.csv", b'x,y\n1,2\n"a" b,2\n', "line 3: this is not CSV"),
    ("a.csv", b'x,y\n1,"never closed\n1,2\n', "line 2: this is not CSV"),
    ("a.jsonl", b'{"x": 1}\n{"x": \n', "line 2: this is not JSON"),
    ("a.jsonl", b'{"x": 1}\n{"x": "a\\ud83d"}\n', "line 2: this is not JSON (half a character"),
    (
        "a.jsonl",
        b'{"x": 1}\n{"x": ' + b"9" * 5000 + b"}\n",
        "line 2: this is not JSON (a number has too many",
    ),
    ("a.jsonl", b'{"x": 1}\n{"x": ' + b"[" * 100_000 + b"}\n", "line 2: this is not JSON (nested too deep)"),
    ("a.json", b'[{"x": "\\uDE00"}]', "this is not JSON (half a character"),
    ("a.jsonl", b'{"x": 1}\n3\n', "line 2: a row must be a JSON object"),
    ("a.json", b'[{"x": 1},\n{"x": }]', "line 2: this is not JSON"),
    ("a.json", b'[{"x": 1}, 3]', "row 2: a row must be a JSON object"),
    ("a.parquet", b"PAR1 and then nothing", "could not be read as parquet"),
    ("a.xlsx", b"", "Known: .csv, .json, .jsonl, .md, .parquet, .tsv, .txt"),
]


def test_an_emoji_that_is_whole_is_read_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"x": "\\ud83d\\ude00"}\n{"x": "\xf0\x9f\x98\x80"}\n')
    assert [row["x"] for _, row in read_table(tmp_path / "a.jsonl").rows] == ["😀", "😀"]


@pytest.mark.parametrize(("name", "body", "sentence"), MALFORMED)
def test_what_is_malformed_is_named(tmp_path: Path, name: str, body: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(UserError) as error:
        list(read_table(tmp_path / name).rows)
    assert sentence in str(error.value)
    assert name.removesuffix("xlsx") in str(error.value)


def test_uneven_lines_can_be_collected(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "x\ty\n1\t2\nbroken\n3\t4\n")
    uneven: list[int] = []
    assert rows_of(read_tsv(file, uneven=uneven)) == [{"x": "1", "y": "2"}, {"x": "3", "y": "4"}]
    assert uneven == [3]


def test_a_saved_data_set_without_the_split_names_those_it_has(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"x": ["a"]})}).save_to_disk(str(saved))
    with pytest.raises(UserError, match=r"no split 'validation'.*Known: train"):
        read_saved(saved, "validation")
    (saved / "train" / "dataset_info.json").unlink()
    with pytest.raises(UserError, match="could not be read as a saved data set"):
        read_saved(saved, "train")


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the hub.\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(tables, "answers", lambda *_: True)
    with pytest.raises(UserError) as error:
        read_hub("owner/name", "part", None, "train")
    assert "owner/name (part)" in str(error.value)
    assert "Couldn't reach the hub. Without a network" in str(error.value)
