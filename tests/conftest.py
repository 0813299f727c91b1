"""A tiny random Llama and small tasks: what the tests of models, run and command line share."""

import atexit
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

CACHE = tempfile.mkdtemp(prefix="forgetmenot-cache-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

# Before torch is imported, here and in the processes that tests start.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "FORGETMENOT_CACHE": CACHE,
}

# A shell's background job is started with Ctrl-C ignored, and so would be what the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.running", "tests.gguf_files"]  # import torch, so after the environment is set

CHAT = (
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "animal": {
        "cat": ("tabby", "kitten", "tomcat", "mouser"),
        "dog": ("puppy", "hound", "poodle", "spaniel"),
    },
    "colour": {"red": ("rose", "brick", "ruby", "cherry"), "blue": ("sky", "sea", "denim", "cobalt")},
    "size": {
        "small": ("ant", "pin", "seed"),
        "middle": ("chair", "door", "bike"),
        "big": ("ship", "tower", "hill"),
    },
}
Rows = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """Byte-level BPE of 300 tokens, with EOS and a chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=294, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    text = [f"Word: {w}\nKind: {label}" for kind in WORDS.values() for label, ws in kind.items() for w in ws]
    tokenizer.train_from_iterator(text, trainer)
    special = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]
    tokenizer.add_special_tokens([AddedToken(one, normalized=False) for one in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[0], chat_template=CHAT
    )


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """The directory of a random Llama of width 32 with 2 layers, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def write_task(folder: Path, name: str, train: Rows = (), score: Rows = (), **settings: Any) -> Path:
    """Write a task's YAML and its rows as jsonl; returns the YAML's path."""
    splits = {split: rows for split, rows in (("train", train), ("score", score)) if rows}
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}-{split}.jsonl").write_text(lines, encoding="utf-8")
    data = {split: f"{name}-{split}.jsonl" for split in splits}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "data": data, **settings}), encoding="utf-8")
    return path


def write_benchmark(folder: Path, name: str, rows: Rows, **settings: Any) -> Path:
    """Write a task file of lm-evaluation-harness's kind and its rows; returns the YAML's path."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}-rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    described = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "multiple_choice",
        "test_split": "test",
        **settings,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(described), encoding="utf-8")
    return path


def word_rows(name: str, count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows such as {"word": "kitten 7", "kind": "cat"}, no two alike; labels take turns."""
    draw = random.Random(name)
    labels = list(WORDS[name])
    rows = []
    for number in range(first, first + count):
        kind = labels[number % len(labels)]
        rows.append({"word": f"{draw.choice(WORDS[name][kind])} {number}", "kind": kind})
    return rows


def word_task(folder: Path, name: str, train: int = 40, score: int = 24, **settings: Any) -> Path:
    """A choice among the labels of WORDS[name], with the prompts `default` and `terse`."""
    choices = {label: label for label in WORDS[name]}
    prompts = {
        "default": {"template": "Word: {{ word }}\nKind:", "choices": choices},
        "terse": {"template": "{{ word }} =", "choices": choices},
    }
    rows = word_rows(name, train), word_rows(name, score, first=train)
    return write_task(folder, name, *rows, **{"label": "kind", "prompts": prompts, **settings})


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The YAML files of three choices, by name: animal, colour, size; 40 rows to learn, 24 to score."""
    folder = tmp_path_factory.mktemp("tasks")
    return {name: word_task(folder, name) for name in WORDS}


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., Path]:
    """Write a task of the test's own: make_task(name, train_rows, score_rows, **keys of the YAML)."""

    def make(name: str, train: Rows = (), score: Rows = (), **settings: Any) -> Path:
        return write_task(tmp_path / "own-tasks", name, train, score, **settings)

    return make


@pytest.fixture
def make_word_task(tmp_path: Path) -> Callable[..., Path]:
    """Like one of `tiny_tasks`, with other sizes or keys: make_word_task(name, train, score, **keys)."""

    def make(name: str, train: int = 40, score: int = 24, **settings: Any) -> Path:
        return word_task(tmp_path / "own-tasks", name, train, score, **settings)

    return make


@pytest.fixture
def make_benchmark(tmp_path: Path) -> Callable[..., Path]:
    """Write a task of lm-evaluation-harness's kind: make_benchmark(name, rows, **keys of the YAML)."""

    def make(name: str, rows: Rows, **settings: Any) -> Path:
        return write_benchmark(tmp_path / "benchmarks", name, rows, **settings)

    return make


@pytest.fixture(scope="session")
def furnished(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, tiny_tasks: dict[str, Path]
) -> Path:
    """A folder with model/, tasks/ and done/, a finished run of two stages; not to be changed."""
    from forgetmenot.runs.api import run

    folder = tmp_path_factory.mktemp("furnished")
    shutil.copytree(tiny_llama, folder / "model")
    shutil.copytree(tiny_tasks["animal"].parent, folder / "tasks")
    limits = {"training.limit": 8, "evaluation.limit": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run({"model": "model", "tasks": "tasks/animal.yaml,tasks/colour.yaml", "output": "done", **limits})
    return folder


@pytest.fixture
def here(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `furnished` to work in or to break something in; it is the working directory."""
    folder = tmp_path / "here"
    shutil.copytree(furnished, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def in_processes(tmp_path: Path) -> Callable[..., list[Any]]:
    """Call a function in two processes that a launcher might have started; what each of them returned."""
    import torch
    from accelerate.state import AcceleratorState

    def call(function: Callable[[], Any], count: int = 2) -> list[Any]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        files = [tmp_path / f"returned-{rank}.pt" for rank in range(count)]

        def child(rank: int) -> None:
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            os.environ |= {name: str(number) for name, number in numbers.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            AcceleratorState._reset_state(reset_partial_state=True)  # what the parent made is not the child's
            torch.save(function(), files[rank])

        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=child, args=(rank,)) for rank in range(count)]
        for process in processes:
            process.start()
        try:
            for process in processes:
                process.join(300)
            assert [process.exitcode for process in processes] == [0] * count
        finally:
            for process in processes:
                process.kill()
        return [torch.load(file, weights_only=False) for file in files]

    return call


@pytest.fixture
def join_sharded() -> Callable[[], None]:
    """Join processes on CPUs as if Accelerate had let its FSDP plugin take effect, which it does on GPUs."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    from forgetmenot.engine import ranks

    join = ranks.join  # a test may put this fixture in its place

    def joined() -> None:
        join()
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        AcceleratorState._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}

    return joined


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built docs; a warning is an error."""
    pytest.importorskip(
        "material", reason="mkdocs-material is not installed: pip install 'forgetmenot[docs]'"
    )
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    root = Path(__file__).parents[1]
    built = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder
