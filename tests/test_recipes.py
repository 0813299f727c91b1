"""The recipes: every run of theirs is valid; every model of the paper's study loads, learns and scores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from torch.nn import Linear
from transformers import (
    AutoModelForCausalLM,
    GPTJConfig,
    LlamaConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
)

import forgetmenot
from forgetmenot.config import RunConfig
from forgetmenot.errors import UserError
from forgetmenot.evaluation.readings import scored_task
from forgetmenot.methods import make_method
from forgetmenot.models.adapt import adapt
from forgetmenot.models.load import load_model
from forgetmenot.prompting import choose_prompt, known_prompts
from forgetmenot.report.published import load_published
from forgetmenot.runs.plan import data_folder, make_plan
from forgetmenot.runs.session import open_session
from forgetmenot.studies.config import expand_study, load_study
from forgetmenot.tasks import expand, known_tasks, load_tasks
from forgetmenot.tasks.trace import trace_tasks
from forgetmenot.tasks.yaml_file import read_yaml

RECIPES = Path(__file__).parents[1] / "recipes"
STUDIES = [path for path in sorted(RECIPES.glob("*.yaml")) if "\ngrid:" in path.read_text(encoding="utf-8")]
PAPER = "haque-2025.yaml"
RUNS = {run.config.model.name: run for run in expand_study(load_study(RECIPES / PAPER))}
TRAIN, SELECT, SCORE = 40, 4, 12
"""Rows of each task; `select` is a tenth of train's."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIZE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": 0,
    "pad_token_id": None,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 256,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 3.0, 4.0], "original_max_position_embeddings": 256,
}  # fmt: skip
LINEAR = {
    "llama": "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    "qwen2": "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
    "phi3": "qkv_proj o_proj gate_up_proj down_proj",
    "phi": "q_proj k_proj v_proj dense fc1 fc2",
    "gptj": "q_proj k_proj v_proj out_proj fc_in fc_out",
}
"""Each kind of model's linear layers but the LM head, as its own code names them."""


def _architecture(name: str) -> PreTrainedConfig:
    """The kind of model that a hub id is, small: as its config.json there says."""
    if "Qwen2.5" in name:
        tied = name.endswith("0.5B")
        return Qwen2Config(**SIZE, num_key_value_heads=2, tie_word_embeddings=tied)
    if name == "microsoft/phi-2":
        return PhiConfig(**SIZE, partial_rotary_factor=0.5)  # of 8, as 0.4 is of the real 80
    if "Phi-3.5" in name:
        return Phi3Config(**SIZE, num_key_value_heads=4, rope_parameters=LONG, sliding_window=400)
    if "gpt-j" in name:
        return GPTJConfig(
            vocab_size=300, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=512, eos_token_id=0
        )
    if "Llama-3" in name:
        rope = LLAMA3 if "3-8B" not in name else {"rope_type": "default", "rope_theta": 500000.0}
        tied = "3.2" in name
        return LlamaConfig(**SIZE, num_key_value_heads=2, rope_parameters=rope, tie_word_embeddings=tied)
    return LlamaConfig(**SIZE)  # Llama-2, and Orca-2 which is one


@pytest.fixture
def hub(tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a model of a hub id's architecture into a cache as the hub's client leaves it, of random weights.

    In 16 bits and in several files, as the hub has them; pickled `.bin` files for those that ship only these.
    """
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", str(cache), raising=False)

    def put(name: str) -> Path:
        folder = cache / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / COMMIT
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(_architecture(name)).to(torch.bfloat16)
        if RUNS[name].config.model.allow_bin:
            _save_pickled(model, snapshot, parts=1 if "gpt-j" in name else 2)
        else:
            model.save_pretrained(snapshot, max_shard_size="40KB")
            assert len(list(snapshot.glob("*.safetensors"))) > 1
        tiny_tokenizer.save_pretrained(snapshot)
        return snapshot

    return put


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """A data folder with the paper's four tasks, few rows each, in the files of GLUE."""
    files = {
        "SST-2": ("dev", "sentence\tlabel", "fun number {}\t{}", ("0", "1")),
        "MRPC": (
            "dev",
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            "{1}\t1\t2\tHe said {0}.\tShe left.",
            ("0", "1"),
        ),
        "CoLA": ("dev", "", "gj04\t{1}\t\tThey {0} it.", ("0", "1")),
        "MNLI": (
            "dev_matched",
            "index\tsentence1\tsentence2\tgold_label",
            "0\tA {}.\tB.\t{}",
            ("entailment", "neutral", "contradiction"),
        ),
    }
    for name, (dev, header, row, labels) in files.items():
        folder = tmp_path / "data" / "glue" / name
        folder.mkdir(parents=True)
        rows = [row.format(k, labels[k % len(labels)]) for k in range(TRAIN + SCORE)]
        for split, part in (("train", rows[:TRAIN]), (dev, rows[TRAIN:])):
            (folder / f"{split}.tsv").write_text("\n".join([*([header] if header else []), *part]) + "\n")
    return tmp_path / "data"


def _save_pickled(model: Any, folder: Path, parts: int) -> None:
    model.config.save_pretrained(folder)
    held = dict(model.state_dict())
    names = sorted(held)
    files = (
        ["pytorch_model.bin"] if parts == 1 else [f"pytorch_model-0000{k + 1}-of-00002.bin" for k in range(2)]
    )
    place = {name: files[k * parts // len(names)] for k, name in enumerate(names)}
    for file in files:
        torch.save({name: held[name] for name in names if place[name] == file}, folder / file)
    if parts > 1:
        index = {"metadata": {"total_size": 1}, "weight_map": place}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_run_of_a_recipe_has_its_tasks_and_prompts(path: Path) -> None:
    prompts = known_prompts()
    for run in expand_study(load_study(path)):
        for task in expand(run.config.tasks):
            if task.endswith(".yaml"):
                continue  # a file that a script writes, with its prompts: tests/scripts/test_key_value.py
            if task.startswith("super-ni-"):
                assert task in known_tasks()  # its prompt comes with its data
                continue
            own = {"default"} if task in trace_tasks() else prompts[task]  # TRACE's come with its data
            assert run.config.prompt in own, f"{task} has no prompt {run.config.prompt}"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_run_of_a_recipe_has_an_adapter_that_its_method_takes(path: Path) -> None:
    for run in expand_study(load_study(path)):
        config = run.config
        make_method(config.method.name, config.method.options, config.seed).check(config.adapter)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_no_recipe_names_a_path_of_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "/home" not in text
    assert "/work" not in text
    base = load_study(path).base if path in STUDIES else read_yaml(path)
    assert base.get("data_dir", "${FORGETMENOT_DATA}") == "${FORGETMENOT_DATA}"


def test_the_bundled_recipe_can_start() -> None:
    runs = expand_study(load_study(RECIPES / "haque-2025-cpu.yaml"))
    varied = {key: {str(run.varies[key]) for run in runs} for key in runs[0].varies}
    assert {key: len(values) for key, values in varied.items()} == {
        "seed": 3, "model": 2, "prompt": 3, "order": 2,
    }  # fmt: skip
    for run in {str(run.config.prompt): run for run in runs}.values():
        make_plan(run.config)


def test_the_papers_recipe_has_the_papers_models_once_each() -> None:
    table, _ = load_published("haque-2025").tables
    short = [name.rpartition("/")[2] for name in RUNS]
    for row in table.rows:
        assert len({row["label"], *row.get("checkpoints", ())} & set(short)) == 1
    assert len(RUNS) == len(table.rows) == 13
    assert [name for name, run in RUNS.items() if run.config.model.allow_bin] == [
        "EleutherAI/gpt-j-6b", "microsoft/Orca-2-7b", "naimul011/GlueOrca",
    ]  # fmt: skip
    assert not any(run.config.model.trust_remote_code for run in RUNS.values())


@pytest.mark.parametrize("name", RUNS)
def test_a_model_of_the_paper_loads_learns_and_scores(name: str, hub: Callable[[str], Path]) -> None:
    hub(name)
    config = RUNS[name].config
    limited = config.evaluation.model_copy(update={"limit": 3})
    config = config.model_copy(update={"tasks": ("qs-sentiment",), "evaluation": limited})
    session = open_session(config)
    assert session.identity["model_revision"] == COMMIT
    (task,) = load_tasks(config.tasks, None)
    prompt = choose_prompt(task, "instruction")
    asked = scored_task(config.asking, task, prompt, session.learner, session.max_length)
    session.examine(asked.sequences)
    assert session.learner.layout == "trie"
    before = session.learner.log_likelihoods(asked.arranged(session.learner))
    assert before.shape == (6,)
    assert bool(torch.isfinite(before).all())

    kind = session.learner.model.config.model_type
    plain = [key for key, part in session.learner.model.named_modules() if isinstance(part, Linear)]
    expected = {f"{key}" for key in plain if key != "lm_head"}
    assert {key.rpartition(".")[2] for key in expected} == set(LINEAR[kind].split())
    model = adapt(session.learner.model, config.adapter, 1, seed=0)
    learning = [key for key, value in model.named_parameters() if value.requires_grad]
    adapted = {key.removeprefix("base_model.model.").partition(".lora_")[0] for key in learning}
    assert adapted == expected
    session.learner.model = model
    again = session.learner.log_likelihoods(asked.arranged(session.learner))
    assert again.tolist() == pytest.approx(before.tolist(), rel=1e-5)  # LoRA's second matrix begins at 0


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_the_papers_recipe_is_previewed(
    name: str, hub: Callable[[str], Path], glue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub(name)
    config = RUNS[name].config.model_copy(update={"data_dir": str(glue), "output": str(glue / "run")})
    before = forgetmenot.preview(config)
    assert [stage.trains_on for stage in before.stages] == [("sst2",), ("mrpc",), ("cola",), ("mnli",)]
    assert [(stage.examples, stage.steps) for stage in before.stages] == [(TRAIN - SELECT, 2)] * 4
    assert [(one.task, one.prompt, one.examples) for one in before.scoring] == [
        (task, config.prompt, SCORE) for task in ("sst2", "mrpc", "cola", "mnli")
    ]
    counts = [(one.computed, one.without_sharing) for one in before.stages]
    counts += [(one.computed, one.without_sharing) for one in before.scoring]
    assert all(0 < computed < alone for computed, alone in counts)
    assert 0 < before.parameters["trainable"] < before.parameters["all"]
    assert before.memory["peak"] > before.memory["weights"]
    assert before.seconds > 0
    before.print()
    printed = capsys.readouterr().out
    assert "04-mnli" in printed
    assert f"on: {before.machine}" in printed
    assert f"{torch.get_num_threads()} threads" in before.machine


@pytest.mark.parametrize("name", ["EleutherAI/gpt-j-6b", "microsoft/Orca-2-7b"])
def test_pickled_checkpoints_of_the_paper_need_their_permission(
    name: str, hub: Callable[[str], Path]
) -> None:
    hub(name)
    settings = RUNS[name].config.model.model_copy(update={"allow_bin": False})
    with pytest.raises(UserError, match=r"set model\.allow_bin: true"):
        load_model(settings, trainable=False, device=torch.device("cpu"))


def test_local_data_may_be_named_by_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(data_dir="${FORGETMENOT_DATA}/sets")
    (tmp_path / "sets").mkdir()
    monkeypatch.setenv("FORGETMENOT_DATA", str(tmp_path))
    assert data_folder(config) == tmp_path / "sets"
    assert "${FORGETMENOT_DATA}" in config.to_yaml()  # so that the run is the same one on another machine
