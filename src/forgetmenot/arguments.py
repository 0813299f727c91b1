"""The command line's grammar: every verb with its arguments."""

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from forgetmenot.errors import UserError, nearest
from forgetmenot.models.settings import GGUF_TYPES
from forgetmenot.reference import KINDS
from forgetmenot.tasks.yaml_file import parse_yaml, shortened, why

DEMONSTRATIONS = 3
"""How many `fmn synthesize` shows by default: SELF-GUIDE's."""
DATA_DIR = (
    "the folder that holds public data sets, in folders named glue, standard-cl, super-ni, trace or general, "
    "or one of these folders itself; without it GLUE is downloaded from the hub"
)

SIDE = (
    "a hub id, a directory, an adapter's directory, RUN_DIR:STAGE (a number, a name, last), a .gguf file, or "
    "an endpoint's URL[#MODEL]"
)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence, as all others of this program are."""

    def error(self, message: str) -> NoReturn:
        """End with a sentence.

        Raises:
            UserError: Always.
        """
        if wrong := re.match(r"argument \w+: invalid choice: '(.*?)' \(choose from (.*)\)$", message):
            given, known = wrong[1], re.findall(r"[\w-]+", wrong[2])
            message = f"there is no {given!r}. {nearest(given, known)[:-1]}"
        verb = self.prog.partition(" ")[2]
        raise UserError(f"{verb}{': ' if verb else ''}{message}. `{self.prog} --help` explains.")


class _Verb(_Parser):
    """The parser of one verb: what it does not know is its own error, which can point to its help."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but with an error for what is left."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest


def parser() -> argparse.ArgumentParser:
    """The command line's parser; the parsed namespace has the verb's name under `verb`."""
    from forgetmenot import __version__

    top = _Parser(
        prog="forgetmenot",
        description="Fine-tune one language model on one task after another, measure what each step makes "
        "it forget, and prevent it.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=_Verb)

    verb = _verb(verbs, "run", "train on tasks in turn, score all tasks after each, report")
    verb.add_argument(
        "config", nargs="?", type=Path, metavar="CONFIG.yaml", help="default: the bundled quickstart job"
    )
    verb.add_argument(
        "--model", metavar="M", help="a bundled model, a hub id, a local directory, or a .gguf file"
    )
    verb.add_argument("--tasks", metavar="a,b,c", help="names, suites, or paths to task files, in order")
    verb.add_argument(
        "--watch",
        type=_names,
        metavar="d,e",
        help="tasks that are only scored (evaluation.also_score); also lm-evaluation-harness's, as arc_easy",
    )
    verb.add_argument("--method", metavar="X", help="a continual-learning method: see `fmn list methods`")
    verb.add_argument("--prompt", metavar="P", help="a prompt variant: see `fmn list prompts`")
    verb.add_argument("--data-dir", metavar="D", help=DATA_DIR)
    verb.add_argument("--seed", type=int, metavar="N")
    verb.add_argument("--output", metavar="DIR", help="the run directory")
    verb.add_argument("--fresh", action="store_true", help="delete what an earlier run wrote there first")
    verb.add_argument(
        "--preview", action="store_true", help="show what would run and how long it takes; train nothing"
    )
    verb.add_argument("--json", action="store_true", help="with --preview: print it as JSON")
    verb.add_argument(
        "--set", action="append", default=[], metavar="key.path=value", help="any key of the config"
    )
    _several(verb)

    verb = _verb(verbs, "resume", "go on with a run from where it was saved")
    verb.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    _several(verb)

    verb = _verb(verbs, "init", "look at a file of rows, and write the task file that goes with it")
    verb.add_argument(
        "data",
        metavar="DATA",
        help=".jsonl, .json, .csv, .tsv, .parquet, .txt or .md (also with .gz), or a folder of texts",
    )
    verb.add_argument(
        "output", nargs="?", type=Path, metavar="TASK.yaml", help="default: beside the data, with its name"
    )
    verb.add_argument("--answer", metavar="COLUMN", help="the column that holds the answer")
    verb.add_argument("--fresh", action="store_true", help="write over a task file that is there")

    verb = _verb(verbs, "check", "ask a base and a tuned model the same, and judge whether it may ship")
    verb.add_argument("base", metavar="BASE", help=SIDE)
    verb.add_argument(
        "tuned",
        nargs="+",
        metavar="TUNED",
        help="the same; several are a chain: a stage, its export, its quantized file",
    )
    verb.add_argument("--tasks", type=_names, default=(), metavar="a,b,c", help="as in `fmn run`")
    verb.add_argument("--data-dir", metavar="D", help=DATA_DIR)
    verb.add_argument("--prompt", default="default", metavar="P", help="a prompt variant, or a YAML file")
    verb.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="ε|task=ε",
        help="how small a drop counts as none, as 0.03; or of a task or metric; default: each metric's own",
    )
    verb.add_argument("--limit", type=_positive, metavar="N", help="the most examples of a task")
    verb.add_argument("--chat", action="store_true", help="put prompts by each model's chat template")
    verb.add_argument(
        "--baseline", metavar="FILE", help="keeps the base's answers: written, or read if it is there"
    )
    verb.add_argument(
        "--probes",
        type=_entries,
        default=(),
        metavar="a,b",
        help="what to measure beside the tasks, as drift: names, or YAML: [{name: a, option: value}]",
    )
    verb.add_argument(
        "--sequential", action="store_true", help="stop as soon as every task is decided; docs/statistics.md"
    )
    verb.add_argument("--output", metavar="DIR", help="where check.json, .md, .xml and .html go")

    verb = _verb(verbs, "study", "run every combination of a grid and compare the runs")
    verb.add_argument("study", type=Path, metavar="STUDY.yaml", help="a base config, and a grid over it")
    verb.add_argument("--output", metavar="DIR", help="the study's directory")
    verb.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="how many runs at the same time on a machine; by default two where there is no GPU and they fit",
    )
    verb.add_argument(
        "--ray", action="store_true", help="start the runs with Ray; without --ray-address on this machine"
    )
    verb.add_argument("--ray-address", metavar="A", help="a running Ray cluster with a shared file system")
    verb.add_argument(
        "--set", action="append", default=[], metavar="base.key=value", help="any key of the study"
    )

    verb = _verb(verbs, "compare", "compare finished runs and studies")
    verb.add_argument(
        "paths", nargs="+", type=Path, metavar="RUN_DIR", help="the directory of a run or of a study"
    )
    verb.add_argument(
        "--output",
        type=_folder,
        default=Path(),
        metavar="DIR",
        help="where to write compare.html and its tables; default: the current directory",
    )

    verb = _verb(verbs, "score", "re-evaluate the saved stages of a run with another prompt, task or probe")
    verb.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    verb.add_argument("--tasks", type=_names, default=(), metavar="a,b,c", help="default: those of the run")
    verb.add_argument(
        "--prompt",
        metavar="P",
        help="a variant, or a YAML file: a map task → variant; default: those of the run",
    )
    verb.add_argument("--data-dir", metavar="D", help=DATA_DIR)
    verb.add_argument(
        "--probes",
        type=_entries,
        default=(),
        metavar="a,b",
        help="names, or YAML: [{name: a, option: value}]",
    )
    verb.add_argument(
        "--reading",
        action="append",
        default=[],
        metavar="key=value",
        help="another setting: scoring, normalization, calibration or demonstrations",
    )
    _several(verb)

    verb = _verb(verbs, "prompts", "score the prompt variants of each task on `select`, and choose the best")
    verb.add_argument("model", metavar="MODEL", help="as in `fmn run --model`")
    verb.add_argument("--tasks", required=True, type=_names, metavar="a,b,c", help="as in `fmn run`")
    verb.add_argument("--data-dir", metavar="D", help="as in `fmn run`")
    verb.add_argument(
        "--prompts", type=_names, default=(), metavar="a,b", help="default: all variants of each task"
    )
    verb.add_argument("--limit", type=int, metavar="N", help="the number of `select` examples of each task")
    verb.add_argument(
        "--output", type=_folder, metavar="DIR", help="where to write prompts.html and chosen.yaml"
    )
    verb.add_argument(
        "--set", action="append", default=[], metavar="key.path=value", help="any key of the config"
    )

    verb = _verb(verbs, "receipts", "evaluate a model with a small model's prediction in the prompt")
    verb.add_argument("model", metavar="MODEL|RUN_DIR", help="a model as in `fmn run`, or a run's directory")
    verb.add_argument("--tasks", type=_names, default=(), metavar="a,b,c", help="default: those of the run")
    verb.add_argument(
        "--small-model", metavar="M", help="tfidf (the default), or an encoder's hub id or path"
    )
    verb.add_argument(
        "--interpret", action="store_true", help="also ask the model how far the receipt influenced it"
    )
    verb.add_argument("--prompt", metavar="P", help="a prompt variant")
    verb.add_argument("--data-dir", metavar="D", help=DATA_DIR)
    verb.add_argument("--output", type=_folder, metavar="DIR", help="where to write the tables")
    verb.add_argument("--set", action="append", default=[], metavar="key.path=value", help="as in `fmn run`")
    _several(verb)

    verb = _verb(verbs, "synthesize", "let a model write a training set for a task, and train it on that")
    verb.add_argument("model", metavar="MODEL", help="as in `fmn run --model`")
    verb.add_argument(
        "task", nargs="?", metavar="TASK", help="a task file, or a task's name: see `fmn list tasks`"
    )
    verb.add_argument("out", type=_folder, metavar="OUT", help="where task.yaml, its rows and run.yaml go")
    verb.add_argument(
        "--general",
        action="store_true",
        help="no task: conversations from a chat model itself, for `--method replay` (docs/rehearsal.md)",
    )
    verb.add_argument(
        "--demonstrations",
        type=_positive,
        default=DEMONSTRATIONS,
        metavar="N",
        help="solved examples that it sees",
    )
    verb.add_argument("--instruction", metavar="TEXT", help="what the task asks; default: the task's own")
    verb.add_argument("--prompt", default="default", metavar="P", help="a prompt variant")
    verb.add_argument("--data-dir", metavar="D", help=DATA_DIR)
    verb.add_argument("--seed", type=int, default=42, metavar="N")
    verb.add_argument("--train", action="store_true", help="go on to the fine-tune: `fmn run OUT/run.yaml`")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="a setting of docs/synthesis.md, as rounds=10, or any key of the run's config; with --general "
        "one of docs/rehearsal.md, as count=100, and no other",
    )

    verb = _verb(verbs, "limits", "compare models tuned on tasks with their base, shown examples in context")
    verb.add_argument("models", nargs="+", metavar="MODEL", help="as in `fmn run --model`; base models")
    verb.add_argument("--tasks", required=True, type=_names, metavar="a,b,c", help="as in `fmn run`")
    verb.add_argument(
        "--hold-out", type=_names, default=(), metavar="a,b", help="those of them that no model is tuned on"
    )
    verb.add_argument("--data-dir", metavar="D", help=DATA_DIR)
    verb.add_argument("--seed", type=int, default=0, metavar="N")
    verb.add_argument("--output", type=_folder, metavar="DIR", help="where limits.json, .md and the runs go")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="a setting of docs/limits.md, as tests=200, or a key of `adapter`, `training` or `model`",
    )

    verb = _verb(
        verbs, "embed", "sentence embeddings (PromptEOL): vectors, what they are worth, tuning, export"
    )
    verb.add_argument("model", metavar="MODEL", help="as in `fmn run --model`")
    verb.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="sentences: .txt, one on each line, or a table (.jsonl, .csv, .tsv, .parquet)",
    )
    verb.add_argument(
        "out",
        type=_folder,
        metavar="OUT",
        help="the vectors: .safetensors, .npy or .parquet, with a .json beside; without FILE a directory",
    )
    verb.add_argument("--column", metavar="C", help="the table's column of sentences")
    verb.add_argument(
        "--measure",
        metavar="a,b",
        help="no FILE: measure sts12 to sts16, stsb (dev), stsb-test, sick-r, sst2, mrpc; sts, transfer, all",
    )
    verb.add_argument(
        "--demonstrations",
        metavar="FILE|paper",
        help="with --measure: rows of `sentence` and `word`; the best one on STS-B dev is put in front",
    )
    verb.add_argument(
        "--train", action="store_true", help="no FILE: contrastive tuning on NLI triples, and its export"
    )
    verb.add_argument(
        "--export", action="store_true", help="no FILE: write OUT/sentence-transformers, for that library"
    )
    verb.add_argument("--data-dir", metavar="D", help="the folder that holds senteval/ and glue/")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="a setting of docs/embeddings.md, as pooling=mean, or any key of the config",
    )

    verb = _verb(verbs, "export", "write one stage as a model with its tokenizer, for Transformers")
    verb.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    verb.add_argument(
        "--stage", default="last", metavar="S", help="its number or name: 2, or 02-mrpc; default: the last"
    )
    verb.add_argument("out", type=_folder, metavar="OUT")
    verb.add_argument(
        "--gguf", choices=GGUF_TYPES, help="write OUT/model-TYPE.gguf too, for llama.cpp: docs/gguf.md"
    )
    verb.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", help="put OUT into this new repository of the Hugging Face hub"
    )
    verb.add_argument("--private", action="store_true", help="make that repository for its owner alone")

    verb = _verb(verbs, "report", "print the table of a run or a study and write its page again")
    verb.add_argument("run_dir", type=Path, metavar="DIR", help="of a run or a study")

    verb = _verb(verbs, "watch", "serve the page of a run or a study on this machine while it goes on")
    verb.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="a run's or a study's directory; it may be empty yet"
    )
    verb.add_argument("--port", type=int, metavar="N", help="of 127.0.0.1; default: one that is free")

    verb = _verb(verbs, "cache", "show what is kept for later runs, and where")
    verb.add_argument("--clear", action="store_true", help="remove it; it is made anew when it is needed")

    verb = _verb(verbs, "list", "list what there is to choose from and to set, or one of it in full")
    verb.add_argument("what", metavar="WHAT", choices=tuple(KINDS), help=", ".join(KINDS))
    verb.add_argument(
        "name", nargs="?", metavar="NAME", help="one of them, in full; of settings what the keys begin with"
    )
    return top


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    verb.set_defaults(verb=name)
    return verb


def _several(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--num-processes",
        type=_positive,
        metavar="N",
        help="share the work among N processes, one per GPU",
    )


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return number


def _folder(text: str) -> Path:
    """A folder to write into; an empty text would silently be the current one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; name a folder, or '.' for this one")
    return Path(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _entries(text: str) -> tuple[Any, ...]:
    """Names with commas between them, or a list in YAML."""
    try:
        value = parse_yaml(text) if text.lstrip().startswith(("[", "{")) else _names(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not YAML ({why(error)})") from error
    return tuple(value) if isinstance(value, list | tuple) else (value,)
