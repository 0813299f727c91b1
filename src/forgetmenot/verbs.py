"""The verbs of the command line: each calls the Python function of the same name, and nothing else."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import yaml
from rich.table import Table

from forgetmenot.arguments import DEMONSTRATIONS
from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.report.screen import Screen
from forgetmenot.tasks.yaml_file import parse_yaml, shortened, why

WATCHED = "evaluation.also_score"
"""The key that --watch is the friendly name of."""


def run(parsed: argparse.Namespace) -> None:
    """`fmn run`: train on one task after another, score all of them after each, report."""
    from forgetmenot.config import load_config

    config = load_config(parsed.config, _overrides(parsed))
    if parsed.preview:
        from forgetmenot.runs.preview import preview

        _nothing_beside(parsed)
        expected = preview(config)
        print(json.dumps(expected.to_json(), indent=1)) if parsed.json else expected.print(Screen())
        return
    if parsed.json:
        raise UserError("--json is for --preview; a run's results are in its results.json.")
    from forgetmenot.runs.api import run

    _in_processes(parsed)
    found = run(config, fresh=parsed.fresh, console=Screen())
    console = Screen(quiet=not ranks.writes())
    found.print(console)
    console.print(f"\nReport: {found.path / 'report.html'}", highlight=False, soft_wrap=True)
    ranks.leave()


def resume(parsed: argparse.Namespace) -> None:
    """`fmn resume`: go on with a run from where it was saved, by the config in its directory."""
    from forgetmenot.runs.api import resume

    _in_processes(parsed)
    found = resume(parsed.run_dir, console=Screen())
    console = Screen(quiet=not ranks.writes())
    found.print(console)
    console.print(f"\nReport: {found.path / 'report.html'}", highlight=False, soft_wrap=True)
    ranks.leave()


def _nothing_beside(parsed: argparse.Namespace) -> None:
    """Refuse the options that --preview would ignore."""
    for name, given in (("--fresh", parsed.fresh), ("--num-processes", parsed.num_processes is not None)):
        if given:
            raise UserError(f"--preview changes nothing and uses one process; leave out {name}.")


def init(parsed: argparse.Namespace) -> None:
    """`fmn init`: look at a file of rows, and write the task file that goes with it."""
    from forgetmenot.trials.init import init

    init(parsed.data, parsed.output, answer=parsed.answer, fresh=parsed.fresh).print(Screen())


def check(parsed: argparse.Namespace) -> None:
    """`fmn check`: ask a base and a tuned model the same; exit: 0 all kept, 1 forgotten, 3 cannot tell."""
    from forgetmenot.gate.check import check
    from forgetmenot.gate.settings import margins

    console = Screen()
    found = check(
        parsed.base,
        *parsed.tuned,
        tasks=parsed.tasks,
        data_dir=parsed.data_dir,
        prompt=parsed.prompt,
        margin=margins(parsed.margin),
        limit=parsed.limit,
        chat=parsed.chat,
        baseline=parsed.baseline,
        sequential=parsed.sequential,
        probes=parsed.probes,
        output=parsed.output,
        console=console,
    )
    found.print(console)
    console.print(f"\nReport: {found.path / 'check.html'}", highlight=False, soft_wrap=True)
    sys.exit(found.status)


def study(parsed: argparse.Namespace) -> None:
    """`fmn study`: run every combination of a grid and compare the runs."""
    from forgetmenot.studies.config import load_study
    from forgetmenot.studies.study import study

    overrides = _settings(parsed.set)
    if parsed.output is not None:
        overrides["output"] = parsed.output
    config = load_study(parsed.study, overrides)
    console = Screen()
    ray = parsed.ray_address or parsed.ray
    found = study(config, workers=parsed.workers, ray=ray, console=console)
    found.print(console)
    console.print(f"\nReport: {found.path / 'report.html'}", highlight=False, soft_wrap=True)
    sys.exit(found.status)


def compare(parsed: argparse.Namespace) -> None:
    """`fmn compare`: compare finished runs and studies."""
    from forgetmenot.studies.compare import compare

    console = Screen()
    compared = compare(parsed.paths, parsed.output)
    compared.print(console)
    console.print(f"\nReport: {compared.report()}", highlight=False, soft_wrap=True)


def score(parsed: argparse.Namespace) -> None:
    """`fmn score`: re-evaluate the saved stages of a run with another prompt, task or probe."""
    from forgetmenot.metrics.task_metrics import metric_named
    from forgetmenot.report.probe_tables import print_probes
    from forgetmenot.report.wording import number
    from forgetmenot.runs.reprobe import reprobe
    from forgetmenot.runs.rescore import rescore

    if parsed.probes and (parsed.tasks or parsed.prompt or parsed.reading or parsed.data_dir):
        raise UserError("--probes: run two commands, one that scores tasks and one that measures probes.")
    _in_processes(parsed)
    if parsed.probes:
        path, found = reprobe(parsed.run_dir, parsed.probes, console=Screen())
        console = Screen(quiet=not ranks.writes())
        print_probes(found, console)
        console.print(f"\nReading: {path}", highlight=False, soft_wrap=True)
        ranks.leave()
        return
    settings = _settings(parsed.reading, "--reading")
    path, reading = rescore(
        parsed.run_dir,
        parsed.tasks,
        parsed.prompt,
        settings=settings,
        data_dir=parsed.data_dir,
        console=Screen(),
    )
    console = Screen(quiet=not ranks.writes())
    table = Table("stage", *reading["tasks"], box=None)
    named = reading["metric"]  # one for all tasks, or one for each
    metrics = [metric_named(named if isinstance(named, str) else named[task]) for task in reading["tasks"]]
    for stage, row in zip(reading["stages"], reading["matrix"], strict=True):
        cells = zip(metrics, row, strict=True)
        table.add_row(
            stage, *("missing" if value is None else number(metric.shown(value)) for metric, value in cells)
        )
    console.print(table)
    console.print(f"\nReading: {path}", highlight=False, soft_wrap=True)
    ranks.leave()


def prompts(parsed: argparse.Namespace) -> None:
    """`fmn prompts`: score the prompt variants of each task on `select` and compare them with the best."""
    from forgetmenot.trials.prompts import prompts

    console = Screen()
    found = prompts(
        parsed.model,
        parsed.tasks,
        data_dir=parsed.data_dir,
        prompts=parsed.prompts,
        limit=parsed.limit,
        output=parsed.output,
        settings=_settings(parsed.set),
        console=console,
    )
    found.print(console)
    for name in ("prompts.html", "chosen.yaml"):
        console.print(f"{name}: {found.path / name}", highlight=False, soft_wrap=True)


def receipts(parsed: argparse.Namespace) -> None:
    """`fmn receipts`: evaluate the small model, the language model, and the two together."""
    from forgetmenot.report.receipt_tables import print_receipts
    from forgetmenot.trials.receipts import compare_with_receipts

    named = {"prompt": parsed.prompt, "data_dir": parsed.data_dir, "receipts.model": parsed.small_model}
    settings = {key: value for key, value in named.items() if value is not None} | _settings(parsed.set)
    _in_processes(parsed)
    path, found = compare_with_receipts(
        parsed.model,
        parsed.tasks,
        settings,
        interpret=parsed.interpret,
        output=parsed.output,
        console=Screen(),
    )
    console = Screen(quiet=not ranks.writes())
    print_receipts(found, console)
    console.print(f"Receipts: {path.with_suffix('.md')}", highlight=False, soft_wrap=True)
    ranks.leave()


def synthesize(parsed: argparse.Namespace) -> None:
    """`fmn synthesize`: let a model write a training set for a task, and fine-tune it on that."""
    from forgetmenot.trials.synthesize import synthesize

    console = Screen()
    if parsed.general:
        _synthesize_general(parsed, console)
        return
    if parsed.task is None:
        raise UserError("synthesize: name a task between the model and the folder, or say --general.")
    found = synthesize(
        parsed.model,
        parsed.task,
        parsed.out,
        demonstrations=parsed.demonstrations,
        instruction=parsed.instruction,
        prompt=parsed.prompt,
        data_dir=parsed.data_dir,
        seed=parsed.seed,
        settings=_settings(parsed.set),
        train=parsed.train,
        console=console,
    )
    found.print(console)
    for name in ("synthesis.html", "task.yaml"):
        console.print(f"{name}: {found.path / name}", highlight=False, soft_wrap=True)
    if found.run is None:
        console.print(f"Train on it: fmn run {found.path / 'run.yaml'}", highlight=False, soft_wrap=True)
        return
    found.run.print(console)
    console.print(f"\nReport: {found.run.path / 'report.html'}", highlight=False, soft_wrap=True)


def _synthesize_general(parsed: argparse.Namespace, console: Screen) -> None:
    """With --general: conversations, and no task to write examples of."""
    from forgetmenot.trials.synthesize_general import synthesize_general

    unused = {
        "TASK": parsed.task,
        "--demonstrations": parsed.demonstrations != DEMONSTRATIONS,
        "--instruction": parsed.instruction,
        "--prompt": parsed.prompt != "default",
        "--data-dir": parsed.data_dir,
        "--train": parsed.train,
    }
    for name, value in unused.items():
        if value:
            raise UserError(f"synthesize --general writes no examples of a task: leave out {name}.")
    found = synthesize_general(
        parsed.model, parsed.out, seed=parsed.seed, settings=_settings(parsed.set), console=console
    )
    found.print(console)
    console.print(
        f"Rehearse it: fmn run --model {shlex.quote(parsed.model)} --tasks YOUR_TASK,"
        f"{found.path / 'task.yaml'} --method replay --set method.sources=general",
        highlight=False,
        soft_wrap=True,
    )


def limits(parsed: argparse.Namespace) -> None:
    """`fmn limits`: compare models that are tuned on tasks with their base, shown examples in context."""
    from forgetmenot.trials.limits import limits

    console = Screen()
    found = limits(
        parsed.models,
        parsed.tasks,
        parsed.output,
        hold_out=parsed.hold_out,
        data_dir=parsed.data_dir,
        seed=parsed.seed,
        settings=_settings(parsed.set),
        console=console,
    )
    found.print(console)
    console.print(f"\nTables: {found.path / 'limits.md'}", highlight=False, soft_wrap=True)


def embed(parsed: argparse.Namespace) -> None:
    """`fmn embed`: vectors of sentences, what a model's vectors are worth, tuning, and export."""
    from forgetmenot.trials import embed
    from forgetmenot.trials.embedding_folder import RESULTS

    modes = {"--measure": parsed.measure, "--train": parsed.train, "--export": parsed.export}
    chosen = [name for name, given in {"FILE": parsed.file, **modes}.items() if given]
    if len(chosen) != 1:
        raise UserError(f"embed: give one of FILE, {', '.join(modes)}, not {' and '.join(chosen) or 'none'}.")
    of_mode = {
        "--column": (parsed.column, ("FILE",)),
        "--demonstrations": (parsed.demonstrations, ("--measure",)),
        "--data-dir": (parsed.data_dir, ("--measure", "--train")),
    }
    for name, (given, within) in of_mode.items():
        if given is not None and chosen[0] not in within:
            raise UserError(f"embed: {name} has no effect with {chosen[0]}; leave it out.")
    console, settings = Screen(), _settings(parsed.set)
    if parsed.file:
        about = embed.embed(
            parsed.model, parsed.file, parsed.out, column=parsed.column, settings=settings, console=console
        )
        console.print(f"Vectors: {parsed.out}, made with {about}", highlight=False, soft_wrap=True)
    elif parsed.export:
        path = embed.export_embeddings(parsed.model, parsed.out, settings=settings, console=console)
        console.print(f"Exported: {path}", highlight=False, soft_wrap=True)
    elif parsed.measure:
        found = embed.measure_embeddings(
            parsed.model,
            parsed.out,
            sets=parsed.measure,
            demonstrations=parsed.demonstrations,
            data_dir=parsed.data_dir,
            settings=settings,
            console=console,
        )
        found.print(console)
        console.print(f"\nResults: {found.path / RESULTS}", highlight=False, soft_wrap=True)
    else:
        from forgetmenot.trials.tune_embeddings import tune_embeddings

        tuned = tune_embeddings(
            parsed.model, parsed.out, data_dir=parsed.data_dir, settings=settings, console=console
        )
        tuned.print(console)


def _in_processes(parsed: argparse.Namespace) -> None:
    """With --num-processes: start the other processes, and exit with their status."""
    if parsed.num_processes is not None:
        from forgetmenot.runs.processes import check_processes, launch, launched

        check_processes(parsed.num_processes)
        if not launched():
            sys.exit(launch(parsed.arguments, parsed.num_processes))


def export(parsed: argparse.Namespace) -> None:
    """`fmn export`: write a stage as one loadable model with its tokenizer."""
    from forgetmenot.runs.export import export

    said = export(
        parsed.run_dir,
        parsed.stage,
        parsed.out,
        parsed.gguf,
        push_to_hub=parsed.push_to_hub,
        private=parsed.private,
    )
    print(f"Exported: {parsed.out}. {said}")


def report(parsed: argparse.Namespace) -> None:
    """`fmn report`: print the table of a run or a study and write its report.html again."""
    from forgetmenot.record.seal import unsealed
    from forgetmenot.runs.api import Run
    from forgetmenot.studies.study import Study

    console = Screen()
    if (parsed.run_dir / "study.json").is_file():
        found_study = Study(parsed.run_dir)
        found_study.print(console)
        console.print(f"\nReport: {found_study.report()}", highlight=False, soft_wrap=True)
        return
    found = Run(parsed.run_dir)
    found.print(console)
    if sentence := unsealed(found.path):
        console.print(f"\n{sentence}", highlight=False, markup=False)
    console.print(f"\nReport: {found.report()}", highlight=False, soft_wrap=True)


def watch(parsed: argparse.Namespace) -> None:
    """`fmn watch`: serve the page of a run or a study while it goes on."""
    from forgetmenot import signals
    from forgetmenot.studies.live import watch

    with watch(parsed.run_dir, port=parsed.port) as page:
        print(f"Page: {page.address} (Ctrl-C ends it)", flush=True)
        try:
            page.wait()
        except signals.Interrupted as interrupted:
            raise signals.Interrupted(interrupted.number, "The page is no longer served.") from interrupted


def cache(parsed: argparse.Namespace) -> None:
    """`fmn cache`: show what is kept for later runs, or remove it."""
    from forgetmenot.paths import cache_folder
    from forgetmenot.record.cache import clear_cache, kept_in_cache

    folder, console = cache_folder(), Screen()
    table = Table("removed" if parsed.clear else "kept", "files", "MB", box=None, pad_edge=False)
    for one in clear_cache(folder) if parsed.clear else kept_in_cache(folder):
        table.add_row(one.what, f"{one.files:,}", f"{one.size / 1e6:,.1f}")
    console.print(table)
    where = folder or "none, for no home folder can be written; name one in FORGETMENOT_CACHE"
    console.print(f"\nFolder: {where}", highlight=False, soft_wrap=True)


def list_known(parsed: argparse.Namespace) -> None:
    """`fmn list`: list what there is to choose from and to set, or one of it in full."""
    from forgetmenot.reference import known

    known(parsed.what, parsed.name).print(Screen())


def _overrides(parsed: argparse.Namespace) -> dict[str, Any]:
    """The command line's values by dotted key; --set comes last."""
    named = {
        "model": parsed.model,
        "tasks": parsed.tasks,
        WATCHED: parsed.watch,
        "method": parsed.method,
        "prompt": parsed.prompt,
        "data_dir": parsed.data_dir,
        "seed": parsed.seed,
        "output": parsed.output,
    }
    settings = _settings(parsed.set)
    if parsed.watch is not None and settings.keys() & {WATCHED, "evaluation"}:
        raise UserError(f"--watch and --set {WATCHED} name the same setting; give one of them.")
    return {key: value for key, value in named.items() if value is not None} | settings


def _settings(given: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """The values of --set or another option, by dotted key; values are read as YAML."""
    settings = {}
    for setting in given:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise UserError(f"{option} {setting}: write it as key.path=value.")
        try:
            settings[key] = parse_yaml(value)
        except yaml.YAMLError as error:
            raise UserError(f"{option} {key}: {shortened(value)} is not YAML ({why(error)}).") from error
    return settings


VERBS = {
    "init": init,
    "run": run,
    "resume": resume,
    "check": check,
    "study": study,
    "compare": compare,
    "score": score,
    "prompts": prompts,
    "receipts": receipts,
    "synthesize": synthesize,
    "limits": limits,
    "embed": embed,
    "export": export,
    "report": report,
    "watch": watch,
    "cache": cache,
    "list": list_known,
}
