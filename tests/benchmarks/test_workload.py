from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from benchmarks.workload import PATH, Row, check_dtype, model_of, read_workload, with_demonstrations
from forgetmenot.errors import UserError
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoder, choose_prompt
from forgetmenot.tasks import load_tasks


def test_the_workload_names_every_row() -> None:
    workload = read_workload()
    names = list(map(str, workload.rows))
    assert len(names) == len(set(names))
    assert names[:4] == ["small/0", "small/0/bf16", "small/8", "small/8/bf16"]
    for model in ("smollm2", "gemma3"):
        assert {f"{model}/0", f"{model}/8/top", f"{model}/0/top/bf16"} <= set(names)
    batch = workload.training.batch_size
    flags = [*workload.peers.trl.choices, *workload.memory.trl]
    assert all(batch % choice["per_device_train_batch_size"] == 0 for choice in flags)


def test_a_rows_workload_has_its_layers_and_dtype() -> None:
    workload = read_workload()
    own = workload.of(Row("smollm2", 0, "top", "bf16"))
    assert own.adapter == AdapterSettings(rank=8, alpha=16, layers={"top": 10})
    assert own.tolerated == workload.tolerance["bf16"]
    plain = workload.of(Row("smollm2", 0))
    assert (plain.adapter.layers, plain.dtype) == ("all", "fp32")


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    changed = tmp_path / "workload.yaml"
    changed.write_text(PATH.read_text() + "repeat: 3\n")
    with pytest.raises(UserError, match=r"repeat.*'repeats'"):
        read_workload(changed)


def test_a_trained_model_lies_in_the_folder_that_is_named(tmp_path: Path, tiny_llama: Path) -> None:
    workload = read_workload()
    assert model_of(workload, "small", str(tiny_llama), None) == tiny_llama
    with pytest.raises(UserError, match=r"--models: the rows of gemma3 need .*gemma-3-270m/"):
        model_of(workload, "gemma3", "quickstart", tmp_path)
    (tmp_path / "gemma-3-270m").mkdir()
    assert model_of(workload, "gemma3", "quickstart", tmp_path) == tmp_path / "gemma-3-270m"


def test_bf16_is_not_measured_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    for units in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, units, lambda: False)
    check_dtype("fp32", torch.device("cpu"))
    with pytest.raises(UserError, match="no units for bf16"):
        check_dtype("bf16", torch.device("cpu"))


def test_demonstrations_are_the_first_of_each_label_in_turn(
    tiny_tasks: dict[str, Path], tiny_llama: Path
) -> None:
    (task,) = load_tasks([str(tiny_tasks["size"])], None)
    plain = choose_prompt(task, "default")
    prompt = with_demonstrations(plain, task, 5)
    first, second, *_ = ([one for one in task.train if one.label == label] for label in task.labels)
    example = task.score[0]
    shown = prompt.render(example.fields).split("\n\n")
    assert len(shown) == 6
    assert shown[0] == f"Word: {first[0].fields['word']}\nKind: {task.labels[0]}"
    assert shown[4] == f"Word: {second[1].fields['word']}\nKind: {task.labels[1]}"
    assert shown[5] == plain.render(example.fields)
    assert with_demonstrations(plain, task, 0) == plain

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    head = {one.prompt[:60] for one in Encoder(task, prompt, tokenizer, 2048).encode_all(task.score)}
    assert len(head) == 1, "the demonstrations are the same for every example"
