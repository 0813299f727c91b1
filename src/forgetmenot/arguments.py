"""What a person may type: every verb with its arguments."""

import argparse
from pathlib import Path
from typing import Any

import yaml


def parser() -> argparse.ArgumentParser:
    """The command line's parser: what it returns has the verb's name under `verb`."""
    from forgetmenot import __version__

    top = argparse.ArgumentParser(
        prog="forgetmenot",
        description="Fine-tune one language model on one task after another, see what each step makes it "
        "forget, and stop it.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(title="verbs", required=True, metavar="VERB")

    verb = _verb(verbs, "run", "train on tasks in turn, score all of them after each, report")
    verb.add_argument("config", nargs="?", type=Path, metavar="CONFIG.yaml", help="default: the bundled job")
    verb.add_argument("--model", metavar="M", help="a bundled model, a hub id, or a local directory")
    verb.add_argument("--tasks", metavar="a,b,c", help="names, suites, or paths to task files, in order")
    verb.add_argument("--method", metavar="X", help="a way not to forget: see `fmn list methods`")
    verb.add_argument("--prompt", metavar="P", help="a prompt variant: see `fmn list prompts`")
    verb.add_argument("--data-dir", metavar="D", help="a folder with glue/ (or glue/ itself); else the hub")
    verb.add_argument("--seed", type=int, metavar="N")
    verb.add_argument("--output", metavar="DIR", help="the run directory")
    verb.add_argument("--fresh", action="store_true", help="remove what is in the run directory first")
    verb.add_argument("--preview", action="store_true", help="say what would run and how long; train nothing")
    verb.add_argument(
        "--set", action="append", default=[], metavar="key.path=value", help="any key of the config"
    )
    _several(verb)

    verb = _verb(verbs, "study", "take every run of a grid to its end and put them side by side")
    verb.add_argument("study", type=Path, metavar="STUDY.yaml", help="a base config, and a grid over it")
    verb.add_argument("--output", metavar="DIR", help="the study's directory")
    verb.add_argument("--workers", type=int, default=1, metavar="N", help="runs at a time on a machine")
    verb.add_argument(
        "--ray", action="store_true", help="start the runs by Ray, here unless given an address"
    )
    verb.add_argument("--ray-address", metavar="A", help="a running Ray cluster; it shares the file system")
    verb.add_argument(
        "--set", action="append", default=[], metavar="base.key=value", help="any key of the study"
    )

    verb = _verb(verbs, "compare", "put finished runs and studies side by side")
    verb.add_argument("paths", nargs="+", type=Path, metavar="RUN_DIR", help="of a run, or of a study")
    verb.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="for compare.html and its tables; here"
    )

    verb = _verb(verbs, "score", "put another prompt or task to the saved stages of a run")
    verb.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    verb.add_argument("--tasks", type=_names, default=(), metavar="a,b,c", help="default: the run's own")
    verb.add_argument("--prompt", metavar="P", help="default: the run's own")
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
        help="what else differs: scoring, normalization, calibration, demonstrations",
    )
    _several(verb)

    verb = _verb(verbs, "prompts", "score the prompt variants of tasks on `select`, and choose")
    verb.add_argument("model", metavar="MODEL", help="a bundled model, a hub id, or a local directory")
    verb.add_argument("--tasks", required=True, type=_names, metavar="a,b,c", help="as of `fmn run`")
    verb.add_argument("--data-dir", metavar="D", help="as of `fmn run`")
    verb.add_argument("--prompts", type=_names, default=(), metavar="a,b", help="default: all of each task's")
    verb.add_argument("--limit", type=int, metavar="N", help="examples of each task's `select`")
    verb.add_argument("--output", type=Path, metavar="DIR", help="where prompts.html and chosen.yaml go")
    verb.add_argument(
        "--set", action="append", default=[], metavar="key.path=value", help="any key of the config"
    )

    verb = _verb(verbs, "receipts", "ask a model, or a run's stages, with a small model's prediction")
    verb.add_argument("model", metavar="MODEL|RUN_DIR", help="a model as in `fmn run`, or a run's directory")
    verb.add_argument("--tasks", type=_names, default=(), metavar="a,b,c", help="default: the run's own")
    verb.add_argument(
        "--small-model", metavar="M", help="tfidf (the default), or an encoder's hub id or path"
    )
    verb.add_argument("--interpret", action="store_true", help="also ask how far the receipt swayed it")
    verb.add_argument("--prompt", metavar="P", help="a prompt variant")
    verb.add_argument("--data-dir", metavar="D", help="a folder with glue/ (or glue/ itself); else the hub")
    verb.add_argument("--output", type=Path, metavar="DIR", help="where the tables go")
    verb.add_argument("--set", action="append", default=[], metavar="key.path=value", help="as in `fmn run`")
    _several(verb)

    verb = _verb(verbs, "export", "write a stage as one loadable model with its tokenizer")
    verb.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    verb.add_argument("--stage", required=True, metavar="S", help="its number or name: 2, or 02-mrpc")
    verb.add_argument("out", type=Path, metavar="OUT")

    verb = _verb(verbs, "report", "print a run's matrix and write its report.html anew")
    verb.add_argument("run_dir", type=Path, metavar="RUN_DIR")

    verb = _verb(verbs, "list", "what has a name here")
    verb.add_argument("what", choices=("tasks", "suites", "methods", "models", "prompts", "probes"))
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
        help="share the work among N processes, one for each GPU",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _entries(text: str) -> tuple[Any, ...]:
    """Names with commas between them, or a list in YAML."""
    value = yaml.safe_load(text) if text.lstrip().startswith(("[", "{")) else _names(text)
    return tuple(value) if isinstance(value, list | tuple) else (value,)
