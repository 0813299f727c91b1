from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.workload import PATH, Row, read_workload, with_demonstrations, write_model
from forgetmenot.errors import UserError
from forgetmenot.prompting import Encoder, choose_prompt
from forgetmenot.tasks import load_tasks

PUBLISHED = {"smollm2-135m": 134_515_008, "qwen2.5-0.5b": 494_032_768}
"""Parameters of the published models."""


def test_the_workload_names_every_row() -> None:
    workload = read_workload()
    assert set(map(str, workload.rows)) == {
        f"{model}/{shots}" for model in ("small", *PUBLISHED) for shots in (0, 8)
    }
    assert Row("small", 8) in workload.rows
    batch = workload.training.batch_size
    assert all(batch % choice["per_device_train_batch_size"] == 0 for choice in workload.peers.trl.choices)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    changed = tmp_path / "workload.yaml"
    changed.write_text(PATH.read_text() + "paris: 3\n")
    with pytest.raises(UserError, match=r"paris.*'pairs'"):
        read_workload(changed)


@pytest.mark.parametrize("name", PUBLISHED)
def test_dimensions_are_those_of_the_published_model(name: str) -> None:
    import torch

    config = read_workload().models[name].config
    assert config is not None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    assert model.num_parameters() == PUBLISHED[name]


def test_a_model_of_given_dimensions_has_the_small_ones_tokenizer(tmp_path: Path, tiny_llama: Path) -> None:
    workload = read_workload()
    llama = workload.models["smollm2-135m"]
    assert llama.config is not None
    tiny = llama.config | {"hidden_size": 18, "intermediate_size": 8, "num_hidden_layers": 1}
    workload = workload.model_copy(
        update={
            "models": {"tiny": llama.model_copy(update={"config": tiny}), "small": workload.models["small"]}
        }
    )
    assert write_model(workload, "small", str(tiny_llama), tmp_path) == tiny_llama
    folder = write_model(workload, "tiny", str(tiny_llama), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (folder, tiny_llama)]
    assert model.config.vocab_size == 49152
    assert model.config.eos_token_id == tokenizers[1].eos_token_id
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()


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
