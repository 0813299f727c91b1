"""Every mistake of a user gives one sentence that says what is wrong, where, and what to do; status 2."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from forgetmenot.cli import main
from forgetmenot.runs.directory import RunDirectory

RUN = "run --model model --output out --tasks "
ANIMAL = RUN + "tasks/animal.yaml "
MINE = RUN + "mine.yaml"
TASK = """
name: mine
data: {train: rows.jsonl, score: rows.jsonl}
label: kind
prompts:
  default: {template: "{{ word }} is a", choices: {cat: cat, dog: dog}}
"""
ROWS = '{"word": "tabby", "kind": "cat"}\n{"word": "hound", "kind": "dog"}\n'
CHATS = """
name: mine
data: {train: rows.jsonl, score: rows.jsonl}
messages: turns
"""
GLUE_HEADER = "sentence\tlabel\n"


@dataclass(frozen=True)
class Case:
    """A command that is wrong.

    Attributes:
        command: What stands behind `fmn`.
        says: What the sentence must contain.
        files: What is written beforehand, beside model/, tasks/ and the finished run done/. mine.yaml and
            rows.jsonl are there as well: a task that is right, for cases that break one thing in it.
        prepare: Breaks what a text cannot.
    """

    command: str
    says: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda folder: None


def of_config(text: str, *says: str) -> Case:
    return Case(ANIMAL + "run.yaml", says, {"run.yaml": text})


def of_set(setting: str, *says: str) -> Case:
    return Case(ANIMAL + f"--set {shlex.quote(setting)}", says)


def of_task(old: str, new: str, *says: str) -> Case:
    assert old in TASK
    return Case(MINE, says, {"mine.yaml": TASK.replace(old, new)})


def of_rows(rows: str, *says: str) -> Case:
    return Case(MINE, says, {"rows.jsonl": rows})


def of_chat(turns: list[dict[str, str]], *says: str) -> Case:
    return Case(MINE, says, {"mine.yaml": CHATS, "rows.jsonl": json.dumps({"turns": turns})})


def of_glue(says: tuple[str, ...], train: str = "good\t1\n", dev: str = "bad\t0\n") -> Case:
    files = {"data/SST-2/train.tsv": GLUE_HEADER + train, "data/SST-2/dev.tsv": GLUE_HEADER + dev}
    return Case(RUN + "sst2 --data-dir data", says, files)


def of_model(prepare: Callable[[Path], object], *says: str) -> Case:
    """`prepare` breaks the model's directory."""
    return Case(ANIMAL, says, prepare=lambda folder: prepare(folder / "model"))


def truncate(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-500])


def pickle(model: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def edit_json(file: str, **changes: object) -> Callable[[Path], object]:
    """A change of some keys; None takes a key away."""

    def edit(model: Path) -> None:
        content = json.loads((model / file).read_text()) | changes
        (model / file).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return edit


def remove(*names: str) -> Callable[[Path], object]:
    def removing(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return removing


CASES = {
    # The command line and the config
    "a key that is unknown": of_config("training: {epoch: 2}", "run.yaml: training.epoch:", "'epochs'"),
    "a section that is unknown": of_set("trainning.epochs=2", "trainning:", "'training'"),
    "a wrong type": of_set("training.epochs=many", "training.epochs:", "'many'"),
    "a limit that is no number": of_set(
        "training.limit=many", "training.limit: input should be a whole number, or a map of keys to values"
    ),
    "a wrong type of a section": of_set("training=3", "training:", "3"),
    "negative epochs": of_set("training.epochs=-1", "training.epochs:", "greater than 0", "-1"),
    "a choice that is unknown": of_set(
        "adapter.kind=qlora",
        "adapter.kind:",
        "Did you mean 'lora'? Known: bridge, full, lora, prompt",
        "'qlora'",
    ),
    "a negative seed": Case(ANIMAL + "--seed -1", ("seed:", "-1")),
    "a rate that is no number": of_set("training.learning_rate=high", "training.learning_rate:", "'high'"),
    "a kind in place of its section": of_set(
        "adapter=full", "adapter:", "adapter.kind: full is how it is written"
    ),
    "targets of a wrong kind": of_set("adapter.targets=q_proj", "adapter.targets:", "'q_proj'"),
    "no tasks at all": Case("run run.yaml", ("run.yaml: tasks:", "at least 1"), {"run.yaml": "tasks: []"}),
    "a task file where a config belongs": Case(
        "run mine.yaml", ("is a task file", "fmn run --tasks mine.yaml")
    ),
    "a config that is missing": Case("run nowhere.yaml", ("nowhere.yaml", "No such file")),
    "a config that is a folder": Case("run tasks", ("tasks", "directory")),
    "a config that is no YAML": of_config("seed: 1\ntraining: {epochs: [\n", "run.yaml, line 3", "not YAML"),
    "a config with no keys": of_config("- sst2\n", "run.yaml", "keys"),
    "a key that stands twice": of_config("seed: 1\nseed: 2\n", "run.yaml, line 2", "'seed' occurs twice"),
    "--set without a value": of_set("training.epochs", "--set training.epochs", "key.path=value"),
    "--set without YAML": of_set("seed=[1", "--set seed", "'[1'", "not YAML"),
    "--set below a value": of_set("seed.first=1", "seed:", "'first'"),
    "--set without a key": of_set("=1", "--set =1", "key.path=value"),
    "a task's name that is too long": of_task("mine", "m" * 101, "mine.yaml", "101 characters", "100"),
    "an output in the home of nobody": Case(
        ANIMAL.replace("--output out", "--output ~nobody-is-called-so/out"), ("output:", "HOME")
    ),
    "a data folder in the home of nobody": of_set("data_dir=~nobody-is-called-so/data", "data_dir:", "HOME"),
    "an output with an unknown placeholder": Case(
        "run --output 'runs/{mdoel}'", ("output", "{mdoel}", "{model}")
    ),
    "a tracker that is unknown": of_set("trackers=[tensorbord]", "trackers", "'tensorbord'", "tensorboard"),
    "no name for a task": Case(RUN + "''", ("''", "fmn list tasks")),
    "a limit that is true": of_set("training.limit=true", "training.limit", "true is no number"),
    "epochs of a task that are true": of_set("training.epochs={animal: true}", "epochs", "true is no number"),
    "a rate that is true": of_set("training.learning_rate=true", "learning_rate", "true is no number"),
    "a share that is true": of_set("method={name: freeze, share: true}", "share", "true is no number"),
    "epochs without an end": of_set(f"training.epochs={10**30}", "training.epochs", "10000"),
    "a batch without an end": of_set(f"training.batch_size={10**30}", "training.batch_size"),
    "a seed that no generator takes": of_set(f"seed={10**30}", "seed:"),
    "a rank without an end": of_set(f"adapter.rank={10**12}", "adapter.rank", "less than"),
    "demonstrations without an end": of_set(f"demonstrations={10**12}", "demonstrations", "1000"),
    "a setting 1,000 lists deep": of_set("training.epochs=" + "[" * 1000, "training.epochs", "not YAML"),
    "a setting of half a character": of_set('output="a\\ud800"', "output", "half a character"),
    **{
        f"a name of 5,000 letters as {key}": of_set(f"{key}={'a' * 5000}", f"{key}:", "5,000 letters")
        for key in ("model", "tasks", "data_dir", "receipts.model", "evaluation.also_score", "output")
    },
    "a run of 5,000 letters": Case(f"report {'a' * 5000}", ("aaa", "too long")),
    "a template without a field": of_task("{{ word }} is a", "A cat is a", "'mine'", "names no field"),
    **{
        f"a judge at {address!r}": of_config(
            "evaluation: {probes: [{name: safety, judge: "
            + json.dumps({"base_url": address, "model": "m"})
            + "}]}",
            "judge",
            "base_url",
        )
        for address in (
            "http://h\n/v1",
            "http://h:port/v1",
            "http://h:99999/v1",
            "http://h/v1#k",
            "http://a:b@h/v1",
        )
    },
    **{
        f"a side at {address!r}": Case(
            f"check model {shlex.quote(address)} --tasks tasks/animal.yaml", ("address",)
        )
        for address in ("http://h\n/v1", "http://h:port/v1", "http://h:99999/v1", "http://a:b@h/v1")
    },
    "an output without a name": Case("run --output ''", ("output:", "empty")),
    "a comparison over a stranger's file": Case(
        "compare done other --output .",
        ("compare.html", "would be replaced"),
        {"compare.html": "mine"},
        lambda here: shutil.copytree(here / "done", here / "other"),
    ),
    "a check over a stranger's folder": Case(
        "check model done:last --tasks tasks/animal.yaml --output out",
        ("check.json", "no folder of `fmn check`"),
        {"out/check.json": "{}"},
    ),
    "no name for a model": Case("run --model '' --output out", ("model.name:", "at least 1")),
    "a rate without end": of_set("training.learning_rate=.inf", "training.learning_rate:", "finite", "inf"),
    "a tracker that is not installed": of_set("trackers=[clearml]", "trackers", "'clearml'"),
    # Methods, prompts and keys that stand for tasks
    "a method that is unknown": Case(ANIMAL + "--method joints", ("method", "'joints'", "'joint'")),
    "a method's option that is unknown": of_set("method.strength=1", "method.strength:", "no such key"),
    "a prompt that is unknown": Case(ANIMAL + "--prompt ters", ("'animal'", "'ters'", "'terse'")),
    "a further prompt that is unknown": of_set("evaluation.prompts=[ters]", "'animal'", "'ters'", "'terse'"),
    "a file of prompts that is missing": Case(ANIMAL + "--prompt best.yaml", ("best.yaml", "No such file")),
    "a file of prompts for another task": Case(
        ANIMAL + "--prompt best.yaml", ("prompt:", "'sst2'", "animal."), {"best.yaml": "sst2: terse"}
    ),
    "a file of prompts that is none": Case(
        ANIMAL + "--prompt best.yaml", ("prompt", "{'count': 2}"), {"best.yaml": "animal: {count: 2}"}
    ),
    "a reading's key that is unknown": of_set(
        "evaluation.readings=[{promt: terse}]", "evaluation.readings.0.promt:", "no such key", "'prompt'"
    ),
    "a reading that is no map": of_set("evaluation.readings=[terse]", "evaluation.readings.0", "'terse'"),
    "readings that are no list": of_set("evaluation.readings=terse", "evaluation.readings", "'terse'"),
    "a reading that names nothing": of_set("evaluation.readings=[{}]", "evaluation.readings.0", "differs"),
    "a reading that stands twice": of_set(
        "evaluation={prompts: [terse], readings: [{prompt: terse}]}", "evaluation.readings.0", "'terse'"
    ),
    "a way of scoring that is unknown": of_set(
        "evaluation.scoring=generated", "evaluation.scoring:", "'generation'", "'generated'"
    ),
    "a normalization of what is generated": of_set(
        "evaluation={scoring: generation, normalization: bytes}", "evaluation:", "normalization", "likelihood"
    ),
    "calibration without a select split": Case(
        MINE + " --set evaluation.calibration=prior", ("evaluation:", "`select`", "'mine'", "contextual")
    ),
    "a count of demonstrations below zero": of_set("demonstrations=-1", "demonstrations", "-1"),
    "a demonstrations' key that is unknown": of_set(
        "demonstrations={counts: 2}", "demonstrations.counts:", "no such key", "'count'"
    ),
    "more demonstrations than there are examples": of_set(
        "demonstrations=90", "demonstrations:", "'animal'", "too few", "smaller count"
    ),
    "demonstrations for a task that is not there": of_set(
        "demonstrations.count={animals: 1}", "demonstrations.count:", "'animals'", "'animal'"
    ),
    "demonstrations that do not fit": of_set(
        "demonstrations={count: 12}", "'animal'", "max_length", "fewer `demonstrations`"
    ),
    "a prompt for a task that is not there": of_set(
        "prompt={animals: terse}", "prompt:", "'animals'", "'animal'"
    ),
    "epochs for a task that is not there": of_set(
        "training.epochs={animals: 2}", "training.epochs:", "'animals'", "'animal'"
    ),
    # Tasks
    "a task among a hundred that is unknown": Case(RUN + "sst", ("'sst'", "Did you mean 'sst2'")),
    "a suite spelled nearly right": Case(RUN + "glue-4", ("'glue-4'", "Did you mean 'glue4'")),
    "a task named twice": Case(RUN + "sst2,mrpc,sst2", ("'sst2'", "twice")),
    "a suite and its own task": Case(RUN + "glue4,cola", ("'cola'", "twice")),
    "two tasks of one name": Case(RUN + "mine.yaml,other.yaml", ("'mine'", "twice"), {"other.yaml": TASK}),
    "a name that is taken": of_task("name: mine", "name: sst2", "mine.yaml", "'sst2'", "taken"),
    "a task scored beside itself": of_set("evaluation.also_score=[tasks/animal.yaml]", "animal", "twice"),
    "a watched task that is unknown": Case(
        ANIMAL + "--watch sst2,sst3", ("evaluation.also_score:", "'sst3'", "Did you mean", "'sst2'")
    ),
    "a benchmark to be trained": Case(RUN + "sst2,piqa", ("tasks: 'piqa'", "only scored", "--watch")),
    "a benchmark that is nowhere": Case(
        ANIMAL + "--watch piqa", ("evaluation.also_score, task piqa:", "the hub", "data_dir with general/")
    ),
    "what is watched, named twice": Case(
        ANIMAL + "--watch sst2 --set evaluation.also_score=cola", ("--watch", "--set evaluation.also_score")
    ),
    "a task that is unknown": Case(
        RUN + "sst3", ("'sst3'", "Did you mean 'sst2'", "`fmn list tasks` (or suites) shows all.")
    ),
    "a task file that is missing": Case(RUN + "yours.yaml", ("yours.yaml", "No such file")),
    "a task with an unknown key": of_task("label: kind", "labels: kind", "mine.yaml", "'labels'", "'label'"),
    "a task without a name": of_task("name: mine", "", "mine.yaml", "'name'", "missing"),
    "a task without an answer": of_task("label: kind", "", "mine.yaml", "label, target, messages, text"),
    "a task with two answers": of_task(
        "label: kind", "label: kind\ntarget: word", "mine.yaml", "exactly one"
    ),
    "a metric that is null": of_task(
        "label: kind", "label: kind\nmetric: null", "mine.yaml", "'metric'", "null"
    ),
    "an empty cluster": of_task("label: kind", "label: kind\ncluster:", "mine.yaml", "'cluster'", "no value"),
    "no data at all": of_task(
        "data: {train: rows.jsonl, score: rows.jsonl}", "data: null", "mine.yaml", "'data'", "no value"
    ),
    "a split that is null": of_task(
        "train: rows.jsonl", "train: null", "mine.yaml", "'data.train'", "no value"
    ),
    "a stop that is null": of_task(
        "label: kind", "label: kind\ngeneration: {stop: [null]}", "mine.yaml", "'generation.stop'", "null"
    ),
    "prompts that are null": of_task("  default:", "  other:\n  default:", "'prompts.other'", "no value"),
    "a cluster that is a number": of_task(
        "label: kind", "label: kind\ncluster: 3", "mine.yaml", "'cluster' is 3", "text (in quotes"
    ),
    "rows as a task": Case(
        "run --model model --tasks rows.jsonl", ("rows.jsonl is data", "fmn init rows.jsonl")
    ),
    "data that is a number": of_task(
        "data: {train: rows.jsonl, score: rows.jsonl}", "data: 3", "'data'", "a section of keys"
    ),
    "a share of too few rows": of_task("score: rows.jsonl", "score: 10%", "data.score", "are none", "a file"),
    "a share that is all": of_task("score: rows.jsonl", "score: 100%", "data.score", "between 0% and 100%"),
    "a share without train": of_task(
        "data: {train: rows.jsonl, score: rows.jsonl}", "data: {score: 10%}", "data.score", "data.train"
    ),
    "an answer of no tokens": of_task(
        "label: kind", "label: kind\ngeneration: {max_new_tokens: 0}", "is 0; it should be greater than"
    ),
    "a loss of some turns": of_task(
        "label: kind", "label: kind\nmessages_loss: some", "is 'some'; it should be 'all' or 'last'"
    ),
    "a key that is a number": of_task("label: kind", "label: kind\n3: kind", "the key '3' is unknown"),
    "a metric that does not fit": of_task(
        "label: kind", "label: kind\nmetric: rouge_l", "'rouge_l'", "accuracy"
    ),
    "a metric that is unknown": of_task(
        "label: kind", "label: kind\nmetric: acuracy", "there is no metric 'acuracy'", "'accuracy'"
    ),
    "f1 with three labels": Case(
        RUN + "mine.yaml",
        ("mine.yaml", "f1", "2 labels", "3"),
        {"mine.yaml": TASK.replace("dog: dog", "dog: dog, cow: cow") + "metric: f1\n"},
    ),
    "half a preference": of_task("label: kind", "chosen: word", "mine.yaml", "'chosen' and 'rejected'"),
    "no data to train on": of_task("train: rows.jsonl, ", "", "mine", "train split"),
    "a file of rows that is missing": of_task("score: rows", "score: raws", "data.score", "raws.jsonl"),
    "a file of rows of unknown kind": Case(
        MINE,
        ("rows.xlsx", ".jsonl"),
        {"mine.yaml": TASK.replace("rows.jsonl", "rows.xlsx"), "rows.xlsx": ""},
    ),
    "choices without words": of_task("choices: {cat: cat, dog: dog}", "choices: {}", "mine.yaml", "choices"),
    # Rows
    "a split without rows": of_rows("", "rows.jsonl", "no rows"),
    "a label outside the choices": of_rows(
        ROWS + '{"word": "cod", "kind": "fish"}', "rows.jsonl, line 3", "'fish'", "cat, dog"
    ),
    "hidden labels": of_rows('{"word": "cod", "kind": -1}', "rows.jsonl, line 1", "hidden", "labelled one"),
    "a row without its label": of_rows(ROWS + '{"word": "cod"}', "rows.jsonl, line 3", "'kind'", "word"),
    "a row that is no JSON": of_rows(ROWS + '{"word": "cod"', "rows.jsonl, line 3", "not JSON"),
    "a row that is no object": of_rows(ROWS + '["cod", "cat"]', "rows.jsonl, line 3", "named fields"),
    "rows that are not UTF-8": Case(
        MINE,
        ("rows.jsonl, line 1", "UTF-8"),
        prepare=lambda folder: (folder / "rows.jsonl").write_bytes(
            ROWS.replace("tabby", "Kätzchen").encode("latin-1")
        ),
    ),
    "a CSV row with too few fields": Case(
        MINE,
        ("rows.csv, line 3", "1 cells", "2"),
        {"mine.yaml": TASK.replace("jsonl", "csv"), "rows.csv": "word,kind\ntabby,cat\nhound\n"},
    ),
    "a TSV row with a wrong label": Case(
        MINE,
        ("rows.tsv, line 2", "'fish'", "cat, dog"),
        {"mine.yaml": TASK.replace("jsonl", "tsv"), "rows.tsv": "word\tkind\ncod\tfish\n"},
    ),
    "a parquet file that is none": Case(
        MINE,
        ("rows.parquet", "parquet"),
        {"mine.yaml": TASK.replace("jsonl", "parquet"), "rows.parquet": "word,kind\n"},
    ),
    "a chat that the assistant does not answer": of_chat(
        [{"role": "user", "content": "Hello"}, {"role": "user", "content": "?"}],
        "rows.jsonl, line 1",
        "a turn of the assistant's",
    ),
    "a turn without a role": of_chat([{"content": "Hello"}], "rows.jsonl, line 1", "turn 1", "role"),
    # Public data on disk
    "a data folder by a variable that is not set": Case(
        RUN + "sst2 --data-dir ${NO_SUCH_FOLDER}/data", ("data_dir", "NO_SUCH_FOLDER is not set")
    ),
    "a data folder that is missing": Case(RUN + "sst2 --data-dir nowhere", ("data_dir", "'nowhere'")),
    "a data folder without the task": Case(RUN + "sst2 --data-dir tasks", ("sst2", "SST-2", "train.tsv")),
    "a label outside GLUE's": of_glue(("train.tsv, line 2", "'7'", "negative, positive"), train="good\t7\n"),
    "hidden labels in GLUE": of_glue(("dev.tsv, line 2", "hidden"), dev="bad\t-1\n"),
    "GLUE without its column": Case(
        RUN + "sst2 --data-dir data",
        ("train.tsv", "'label'", "sentence"),
        {"data/SST-2/train.tsv": "sentence\ngood\n", "data/SST-2/dev.tsv": "sentence\ngood\n"},
    ),
    # Templates and candidates
    "a field that is null": of_rows(
        ROWS.replace('"hound"', "null"), "'mine'", "rows.jsonl, line 2", "'word' is null", "default"
    ),
    "a template with a missing field": of_task("{{ word }}", "{{ wrod }}", "'mine'", "'wrod'", "'word'"),
    "a template that is no Jinja": of_task("{{ word }}", "{{ word }", "'mine'", "'default'", "line 1"),
    "a template that reaches out": of_task(
        "{{ word }}", "{{ word.__class__.__mro__ }}", "'mine'", "'default'", "sandbox"
    ),
    "a template that fails": of_task("{{ word }}", "{{ word / 2 }}", "'mine'", "'default'", "rendered"),
    "a candidate that begins another": of_task("dog: dog", "dog: cats", "'mine'", "'cat'", "'cats'", "`end`"),
    "candidates that are equal": of_task("dog: dog", "dog: cat", "'mine'", "'cat'", "other words"),
    "a label without a choice": Case(
        MINE + " --prompt other",
        ("'mine'", "'other'", "'dog'", "`choices`"),
        {"mine.yaml": TASK + '  other: {template: "{{ word }}", choices: {cat: cat}}\n'},
    ),
    "a choice without a label": Case(
        MINE + " --prompt other",
        ("'mine'", "'other'", "'cow'", "no label"),
        {"mine.yaml": TASK + '  other: {template: "{{ word }}", choices: {cat: cat, dog: dog, cow: cow}}\n'},
    ),
    "a prompt with an unknown key": of_task(
        "{template:", "{seperator: '', template:", "'seperator'", "'separator'"
    ),
    "a word that YAML takes for a truth value": of_task(
        'template: "{{ word }} is a"', "template: true", "'mine'", "quotes"
    ),
    "a system turn outside a chat": of_task("{template:", "{system: Hi, template:", "'mine'", "`chat: true`"),
    "a chat template that is no Jinja": Case(
        MINE,
        ("'mine'", "score-0", "chat template"),
        {"mine.yaml": TASK.replace("{template:", "{chat: true, template:")},
        prepare=lambda folder: (folder / "model" / "chat_template.jinja").write_text("{% for m in %}"),
    ),
    "a chat template that fails": Case(
        MINE,
        ("'mine'", "score-0", "chat template", "division"),
        {"mine.yaml": TASK.replace("{template:", "{chat: true, template:")},
        prepare=lambda folder: (folder / "model" / "chat_template.jinja").write_text("{{ 1 / 0 }}"),
    ),
    "a chat without a chat template": Case(
        MINE,
        ("'mine'", "'default'", "chat template"),
        {"mine.yaml": TASK.replace("{template:", "{chat: true, template:")},
        prepare=lambda folder: (folder / "model" / "chat_template.jinja").unlink(),
    ),
    "a prompt that is too long": of_set(
        "training.max_length=5", "'animal'", "'score-", "max_length", "5", "leave the row out"
    ),
    # Models
    "a model that is unknown": Case(
        "run --model nobody/nothing --output out --tasks tasks/animal.yaml", ("'nobody/nothing'", "hub")
    ),
    "a model's name that cannot be": Case(
        "run --model 'no such model' --output out --tasks tasks/animal.yaml", ("'no such model'", "bundled")
    ),
    "a model's directory that is missing": Case(
        "run --model ./nowhere --output out --tasks tasks/animal.yaml", ("'./nowhere'", "model")
    ),
    "a model without config.json": of_model(remove("config.json"), "'model'", "config.json"),
    "a model without weights": of_model(remove("model.safetensors"), "'model'", "weights"),
    "a model without a tokenizer": of_model(
        remove("tokenizer.json", "tokenizer_config.json"), "'model'", "tokenizer"
    ),
    "a tokenizer without an end": of_model(
        edit_json("tokenizer_config.json", eos_token=None), "tokenizer", "eos_token"
    ),
    "a config that is no JSON": of_model(
        lambda model: (model / "config.json").write_text("{"), "'model'", "config.json", "JSON"
    ),
    "a kind of model that is unknown": of_model(
        edit_json("config.json", model_type="lama"), "'model'", "lama"
    ),
    "a model that does not generate": of_model(
        edit_json("config.json", model_type="vit", architectures=["ViTModel"]), "'model'", "causal"
    ),
    "weights of another shape": of_model(edit_json("config.json", hidden_size=64), "'model'", "config.json"),
    "weights that are not all there": of_model(
        edit_json("config.json", num_hidden_layers=3), "'model'", "lacks", "model.layers.2.", "config.json"
    ),
    "a checkpoint cut short": of_model(
        lambda model: truncate(model / "model.safetensors"), "'model'", "damaged", "again"
    ),
    "pickled weights": of_model(pickle, "'model'", "safetensors", "model.allow_bin: true"),
    "a model with code of its own": of_model(
        edit_json(
            "config.json",
            model_type="own",
            auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
        ),
        "'model'",
        "model.trust_remote_code: true",
    ),
    "a revision of a directory": of_set("model.revision=v2", "model.revision", "'v2'"),
    "an adapter's target that is unknown": of_set(
        "adapter.targets=[q_prj]", "adapter.targets", "q_prj", "q_proj"
    ),
    "one target of two that is unknown": of_set(
        "adapter.targets=[q_proj, v_prj]", "adapter.targets", "'v_prj'", "Did you mean 'v_proj'"
    ),
    "a target that cannot be adapted": of_set(
        "adapter.targets=[norm]", "adapter.targets", "'norm'", "q_proj"
    ),
    "no target": of_set("adapter.targets=[]", "adapter.targets", "at least 1"),
    "a rank for full fine-tuning": of_set("adapter={kind: full, rank: 4}", "adapter:", "rank", "kind: full"),
    # Run directories
    "another run's directory": Case(
        "run --model model --output done --tasks tasks/animal.yaml --set training.epochs=7",
        ("done", "training.epochs", "--fresh"),
    ),
    "an output that is a file": Case("run --model model --output mine.yaml", ("output", "mine.yaml")),
    "an output below a file": Case("run --model model --output mine.yaml/out", ("output", "mine.yaml/out")),
    "report of no run": Case("report tasks", ("tasks", "results.json")),
    "report of nothing": Case("report nowhere", ("nowhere", "results.json")),
    "report of a broken run": Case("report out", ("results.json", "JSON"), {"out/results.json": "{"}),
    "a broken config in the run's directory": Case(
        ANIMAL, ("out/config.yaml",), {"out/.lock": "forgetmenot run\n", "out/config.yaml": "seed: [1"}
    ),
    "score of no run": Case("score tasks", ("tasks", "config.yaml")),
    "score of an unknown prompt": Case("score done --prompt ters", ("'animal'", "'ters'", "'terse'")),
    "score of an unknown task": Case("score done --tasks sst", ("'sst'", "'sst2'")),
    "score of damaged weights": Case(
        "score done",
        ("done/stages/01-animal", "damaged"),
        prepare=lambda folder: truncate(folder / "done/stages/01-animal/adapter/adapter_model.safetensors"),
    ),
    "score by an unknown way": Case(
        "score done --reading scoring=spoken", ("reading.scoring:", "generation", "'spoken'")
    ),
    "score by an unknown key": Case(
        "score done --reading scorin=generation", ("reading.scorin", "'scoring'")
    ),
    "score by a reading without a value": Case("score done --reading scoring", ("--reading scoring", "key")),
    "prompts of an unknown task": Case("prompts model --tasks sst", ("'sst'", "'sst2'")),
    "prompts of an unknown variant": Case(
        "prompts model --tasks tasks/animal.yaml --prompts ters", ("'animal'", "'ters'", "'terse'")
    ),
    "prompts of a task without a select split": Case(
        "prompts model --tasks mine.yaml", ("'mine'", "`select`", "data.select")
    ),
    "prompts on no examples": Case(
        "prompts model --tasks tasks/animal.yaml --limit 0", ("evaluation.limit", "greater than 0")
    ),
    "prompts into a file": Case(
        "prompts model --tasks tasks/animal.yaml --output mine.yaml", ("output", "mine.yaml")
    ),
    "export of no run": Case("export tasks --stage 1 new", ("tasks", "config.yaml")),
    "export of an unknown stage": Case("export done --stage 7 new", ("--stage", "'7'", "01-animal")),
    "export into a directory in use": Case("export done --stage 1 tasks", ("tasks", "not empty")),
    "export below a file": Case("export done --stage 1 mine.yaml/new", ("mine.yaml/new",)),
    "export of weights that are gone": Case(
        "export done --stage 1 new",
        ("01-animal", "weights", "checkpoints: all"),
        prepare=lambda folder: shutil.rmtree(folder / "done/stages/01-animal/adapter"),
    ),
}


def refusal(command: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What a command says on stderr when it ends with status 2."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(shlex.split(command))
    said = capfd.readouterr().err
    assert exit.value.code == 2, said
    return said


def is_one_sentence(said: str) -> bool:
    return said.startswith("forgetmenot: ") and said.endswith(".\n") and said.count("\n") == 1


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_gives_one_sentence(name: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    for file, text in {"mine.yaml": TASK, "rows.jsonl": ROWS, **case.files}.items():
        (here / file).parent.mkdir(parents=True, exist_ok=True)
        (here / file).write_text(text)
    case.prepare(here)
    said = refusal(case.command, capfd)
    assert is_one_sentence(said), said
    for word in case.says:
        assert word in said


def test_a_directory_in_use_is_refused(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with RunDirectory(here / "out").locked():
        said = refusal(ANIMAL, capfd)
    assert is_one_sentence(said), said
    assert "out is in use by another process" in said


def test_a_mistake_beside_fresh_costs_no_run(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in Path("done").rglob("*") if path.is_file()}
    assert "'ters'" in refusal(
        "run --model model --output done --tasks tasks/animal.yaml --prompt ters --fresh", capfd
    )
    assert {path: path.read_bytes() for path in Path("done").rglob("*") if path.is_file()} == before


def test_libraries_add_nothing_to_the_sentence(here: Path) -> None:
    """In a process of its own, where their warnings and reports would reach the screen."""
    edit_json("config.json", hidden_size=64)(here / "model")
    command = [sys.executable, "-m", "forgetmenot", *shlex.split(ANIMAL)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert is_one_sentence(ended.stderr), ended.stderr
    assert "'model'" in ended.stderr


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("", "VERB"),
        ("rnu", "there is no 'rnu'. Did you mean 'run'?"),
        ("run --sed 1", "--sed"),
        ("run --seed one", "'one'"),
        ("run --num-processes 0", "'0' is no whole number above 0"),
        ("run a.yaml b.yaml", "b.yaml"),
        ("list modles", "'modles'. Did you mean 'models'?"),
        ("score", "RUN_DIR"),
        ("export done", "OUT"),
        ("export done ''", "OUT"),
        ("score done --probes '[a'", "'[a' is not YAML"),
        ("prompts model --tasks tasks/animal.yaml --output ''", "--output: it is empty"),
    ],
)
def test_wrong_usage_is_one_sentence_too(command: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    said = refusal(command, capfd)
    assert is_one_sentence(said), said
    assert says in said
    assert " --help` explains." in said
