"""A file that was damaged is named in a sentence, or changes nothing: no number is another in silence."""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import forgetmenot
from forgetmenot.config import RunConfig, load_config
from forgetmenot.errors import UserError
from forgetmenot.record.seal import check_stage, read_checked, unsealed, write_sealed
from forgetmenot.runs.api import Run
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.export import export
from forgetmenot.runs.rescore import rescore
from forgetmenot.studies.compare import compare

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
SETTINGS = {
    "evaluation.limit": 8,
    "training.limit": 16,
    "evaluation.prompts": ["terse"],
    "method": "ewc",  # keeps tensors of its own
}

STAGES = ("00-base", "01-animal", "02-colour")


def _flipped(share: float) -> Callable[[bytes], bytes]:
    def flipped(content: bytes) -> bytes:
        place = min(int(share * len(content)), len(content) - 1)
        return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]

    return flipped


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a bit at the start": _flipped(0),
    "a bit in the middle": _flipped(0.5),
    "a bit at the end": _flipped(1),
    "garbage": lambda content: b"\x93\x00 no {such file\n" * 7,
    "zeroed": lambda content: bytes(len(content)),
}
WAYS = ("deleted", "a folder", *CHANGES)


def damage(path: Path, way: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if way == "a folder":
        path.mkdir()
    elif way != "deleted":
        path.write_bytes(CHANGES[way](content))


def files_of(run: Path) -> list[str]:
    names = sorted(str(one.relative_to(run)) for one in run.rglob("*") if one.is_file())
    return [name for name in names if name != ".lock"]


@pytest.fixture(scope="module")
def whole(tiny: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two stages; for copying only."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    return forgetmenot.run({**tiny, **SETTINGS, "tasks": tiny["tasks"][:2], "output": str(output)})


@pytest.fixture(scope="module")
def half(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as if it had been killed in its second stage."""
    path = tmp_path_factory.mktemp("runs") / "half"
    shutil.copytree(whole.path, path)
    shutil.rmtree(path / "stages" / "02-colour")
    for name in ("results.json", "report.html"):
        (path / name).unlink()
    return path


def report(run: Path, tmp_path: Path) -> Any:
    """What `fmn report` shows."""
    found = Run(run)
    return found.report().read_text(encoding="utf-8"), found.results, found.predictions(1).to_json()


def goes_on(run: Path, tmp_path: Path) -> Any:
    """What a run ends in by the command that began it, whether it was finished or not."""
    config = yaml.safe_load((run.parent / "other" / "config.yaml").read_text(encoding="utf-8"))
    found = forgetmenot.run(RunConfig.model_validate({**config, "output": str(run)}))
    return found.results, [found.predictions(k).to_json() for k in range(3)]


def compared(run: Path, tmp_path: Path) -> Any:
    """What `fmn compare` says of it beside an undamaged one."""
    shutil.copytree(run.parent / "other", tmp_path / "other", dirs_exist_ok=True)
    found = compare([run, tmp_path / "other"], tmp_path / "comparison")
    return [(one.unpaired, one.results and one.results.matrix) for one in found.runs]


def scored(run: Path, tmp_path: Path) -> Any:
    """What `fmn score` finds."""
    return rescore(run)[1]


def exported(run: Path, tmp_path: Path) -> Any:
    """The model that `fmn export` writes."""
    shutil.rmtree(tmp_path / "model", ignore_errors=True)
    said = export(run, "2", tmp_path / "model")
    return said, (tmp_path / "model" / "model.safetensors").read_bytes()


Verb = Callable[[Path, Path], Any]


def damaged_in_turn(
    run: Path, names: Iterable[str], ways: Iterable[str], verb: Verb, tmp_path: Path
) -> dict[tuple[str, str], str]:
    """Damage one file after another, and see that each is named or that the verb gives what it gave before.

    Returns:
        What was said, by file and way; "" where nothing changed.
    """
    copy = tmp_path / "runs" / "copy"
    said = {}
    shutil.copytree(run, copy.parent / "other")
    shutil.copytree(run, copy)
    undamaged = verb(copy, tmp_path)
    for name, way in itertools.product(names, ways):
        shutil.rmtree(copy)
        shutil.copytree(run, copy)
        damage(copy / name, way)
        try:
            found = verb(copy, tmp_path)
        except UserError as error:
            said[name, way] = str(error)
        else:
            assert found == undamaged, (name, way)
            said[name, way] = ""
    assert [name for (name, _), one in said.items() if one and Path(name).name not in one] == []
    return said


@pytest.mark.slow
@pytest.mark.parametrize("verb", [report, goes_on, compared, scored, exported])
def test_no_verb_reads_a_damaged_file_in_silence(whole: Run, tmp_path: Path, verb: Verb) -> None:
    names = files_of(whole.path)
    if verb is report:
        names.remove("timing.json")  # without it the page has no times
    if verb in (scored, exported):  # which take a while
        ours = ("config.yaml", "environment.json", "seal.json", "adapter/", "method.")
        names = [name for name in names if any(part in name for part in ours)]
    said = damaged_in_turn(whole.path, names, WAYS, verb, tmp_path)
    assert len([one for one in said.values() if one]) > 9


# Of each verb the files that it reads.
READ = {
    "report": (
        report,
        ["results.json", "environment.json", "config.yaml", "stages/01-animal/training.jsonl"],
    ),
    "report of lost examples": (report, ["stages/02-colour/predictions.parquet"]),
    "run": (goes_on, ["results.json", "config.yaml", "stages/01-animal/scores.json"]),
    "compare": (compared, ["results.json", "stages/02-colour/predictions.parquet"]),
    "score": (
        scored,
        [
            *("config.yaml", "environment.json", "stages/01-animal/method.json"),
            *(f"stages/01-animal/adapter/adapter_{file}" for file in ("config.json", "model.safetensors")),
            "stages/01-animal/method.safetensors",
        ],
    ),
    "export": (
        exported,
        [f"stages/02-colour/{file}" for file in ("adapter/adapter_model.safetensors", "predictions.parquet")],
    ),
}


@pytest.mark.parametrize("read", READ)
def test_a_verb_names_a_damaged_file_that_it_reads(whole: Run, tmp_path: Path, read: str) -> None:
    verb, names = READ[read]
    said = damaged_in_turn(whole.path, names, ("deleted", "a bit in the middle"), verb, tmp_path)
    silent = [case for case, sentence in said.items() if not sentence]
    allowed = {("results.json", "deleted"), ("config.yaml", "deleted")} if verb is goes_on else set()
    if verb is goes_on:  # which reads no scores, and sees only that they are there
        allowed.add(("stages/01-animal/scores.json", "a bit in the middle"))
    assert set(silent) <= allowed


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_half_finished_run_goes_on_or_names_the_file(half: Path, tmp_path: Path, way: str) -> None:
    said = damaged_in_turn(half, files_of(half), [way], goes_on, tmp_path)
    assert len([one for one in said.values() if one]) > 9


def test_a_half_finished_run_names_a_damaged_file_before_a_model_is_loaded(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgetmenot.runs.execution.open_session", lambda *_: pytest.fail("it was loaded"))
    ways = ("deleted", "a folder", "a bit in the middle", "empty")
    for name in [name for name in files_of(half) if name.startswith("stages")]:
        if "safetensors" in name or "adapter/" in name or name.endswith("seal.json"):
            continue
        for way in ways:
            copy = tmp_path / "other"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(half, copy)
            damage(copy / name, way)
            with pytest.raises(UserError, match=f"{re.escape(name)} is damaged: .*Delete .* run `fmn run"):
                goes_on(copy, tmp_path)


@pytest.mark.parametrize("name", ["stages/01-animal/cost.json", "stages/00-base/predictions.parquet"])
@pytest.mark.parametrize("run", ["half", "whole"])
def test_what_the_sentence_says_leads_to_the_same_results(
    request: pytest.FixtureRequest, whole: Run, half: Path, tmp_path: Path, name: str, run: str, same: Same
) -> None:
    """The folder that it names is deleted, and the command that it names is run."""
    copy = tmp_path / "copy"
    shutil.copytree(half if run == "half" else whole.path, copy)
    damage(copy / name, "a bit in the middle")
    with pytest.raises(UserError) as said:
        RunDirectory(copy).check(STAGES)
    found = re.search(r"Delete (\S+) and run `fmn run (\S+) --output (\S+)`", str(said.value))
    assert found
    shutil.rmtree(found[1])
    same(forgetmenot.run(load_config(Path(found[2]), {"output": found[3]})), whole)


def forget_seal_of(run: Path) -> None:
    (run / "seal.json").unlink()


def test_stages_whose_weights_were_not_kept_are_made_again_together(
    go: Go, tiny: Mapping[str, Any], tmp_path: Path, same: Same
) -> None:
    settings = {**SETTINGS, "checkpoints": "last"}
    run = go("one", settings)
    damage(run.path / "stages" / "03-size" / "scores.json", "deleted")
    with pytest.raises(UserError) as said:
        go("one", settings)
    stages = [str(run.path / "stages" / name) for name in ("01-animal", "02-colour", "03-size")]
    assert f"Delete {' and '.join(stages)} and run" in str(said.value)
    for stage in stages:
        shutil.rmtree(stage)
    same(go("one", settings), go("two", settings))


def test_weights_that_were_removed_are_no_damage(go: Go, tiny: Mapping[str, Any]) -> None:
    """By the program, or by a user who needs the room."""
    settings = {**SETTINGS, "checkpoints": "last", "tasks": tiny["tasks"][:2]}
    run = go("one", settings)
    seal = json.loads((run.path / "stages" / "01-animal" / "seal.json").read_text())
    assert not [name for name in seal["files"] if name.startswith("adapter/")]
    shutil.rmtree(run.path / "stages" / "02-colour" / "adapter")
    assert rescore(run.path)[1]["matrix"][1:] == [[None, None], [None, None]]
    RunDirectory(run.path).check(STAGES)


@pytest.mark.parametrize(
    "name", ["stages/01-animal/predictions-mine.parquet", "stages/01-animal/probes.json"]
)
def test_a_file_of_another_in_a_stage_is_not_read(whole: Run, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    shutil.copy(copy / "stages" / "02-colour" / "scores.json", copy / name)
    with pytest.raises(UserError, match=f"{name} is damaged: the run did not write it"):
        read_checked(copy / name)


def test_another_adapter_beside_a_stage_s_own_is_not_loaded(whole: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    adapter = copy / "stages" / "01-animal" / "adapter"
    shutil.copytree(copy / "stages" / "02-colour" / "adapter", adapter / "stage-02")
    with pytest.raises(
        UserError, match=r"stage-02/adapter_config\.json is damaged: the run did not write it"
    ):
        rescore(copy)
    shutil.rmtree(adapter / "stage-02")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 99}, indent=2))
    with pytest.raises(UserError, match=r"adapter_config\.json is damaged: it has "):
        rescore(copy)


def test_a_run_older_than_seals_is_read_and_said_to_be_unchecked(
    half: Path, whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "other"
    shutil.copytree(half, old)
    for seal in old.rglob("seal.json"):
        seal.unlink()
    config = yaml.safe_load((old / "config.yaml").read_text(encoding="utf-8"))
    screen = Console(width=10_000)
    found = forgetmenot.run(RunConfig.model_validate({**config, "output": str(old)}), console=screen)
    assert found.results == whole.results
    said = (
        "Stages 00-base, 01-animal were written before stages were sealed and cannot be checked for damage."
    )
    assert capsys.readouterr().out.count(said) == 1
    assert unsealed(old) == said
    assert (old / "stages" / "02-colour" / "seal.json").is_file()
    damage(old / "stages" / "01-animal" / "predictions.parquet", "cut")
    with pytest.raises(UserError, match=r"predictions\.parquet is damaged: it cannot be read"):
        found.report()


def test_further_columns_and_probes_keep_the_seal_true(
    go: Go, tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"prompt": f"Word: {word}"} for word in ("rose", "sea", "hound", "sky")]))
    probed = {**SETTINGS, "evaluation.probes": [{"name": "layers", "prompts": str(prompts)}]}
    go("one", {**probed, "tasks": tiny["tasks"][:1]})
    run = go("one", {**probed, "tasks": tiny["tasks"][:2]})
    for name in STAGES:
        check_stage(run.path / "stages" / name)
        files = json.loads((run.path / "stages" / name / "seal.json").read_text())["files"]
        assert [len(one) for one in files.values()] == [1] * len(files)
        assert "probes.json" in files
    damage(run.path / "stages" / "00-base" / "probes.json", "a bit in the middle")
    with pytest.raises(UserError, match=r"probes\.json is damaged: it is not .* measured again"):
        RunDirectory(run.path).check(STAGES)


@pytest.mark.parametrize("way", ["deleted", "a bit in the middle", "a folder"])
@pytest.mark.parametrize("probe", ["layers", "drift"])
def test_what_a_probe_keeps_of_the_base_is_checked(
    go: Go, tiny: Mapping[str, Any], tmp_path: Path, probe: str, way: str
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"prompt": f"Word: {word}"} for word in ("rose", "sea", "hound", "sky")]))
    options = {"prompts": str(prompts)} if probe == "layers" else {}
    settings = {**SETTINGS, "evaluation.probes": [{"name": probe, **options}], "tasks": tiny["tasks"][:1]}
    go("one", settings)
    run = tmp_path / "one"
    (kept, *_) = sorted((run / "probes" / probe).rglob("[0as]*.safetensors"))
    whole = json.loads((run / "results.json").read_text())
    damage(kept, way)
    stage = run / "stages" / "01-animal"
    for path in (run / "results.json", stage / "probes.json", stage / "seal.json"):
        path.unlink()
    with pytest.raises(UserError) as said:
        go("one", settings)
    assert f"{kept} is damaged" in str(said.value)
    named = re.search(r"Delete (\S+), (\S+) and (\S+):", str(said.value))
    assert named
    for name in named.groups():
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    assert go("one", settings).results == whole


def test_a_kill_between_a_file_and_its_seal_leaves_both_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the three renames of `write_sealed` each may be the last one."""
    path = tmp_path / "results.json"
    rename = Path.rename
    for before in (None, "old", "elder"):
        if before is not None:
            write_sealed(path, before)
        for count in range(3):
            left = iter(range(count))

            def dies(self: Path, target: Path, left: Iterator[int] = left) -> Path:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return rename(self, target)

            monkeypatch.setattr(Path, "rename", dies)
            with pytest.raises(KeyboardInterrupt):
                write_sealed(path, "new")
            monkeypatch.setattr(Path, "rename", rename)
            assert read_checked(path) in (None if before is None else before.encode(), b"new")
            if before is None:
                path.unlink(missing_ok=True)
            else:
                write_sealed(path, before)
                assert read_checked(path) == before.encode()
    path.write_text("eldre")
    with pytest.raises(UserError, match="its SHA-256 is another"):
        read_checked(path)


def test_what_a_kill_left_over_is_swept(half: Path, whole: Run, tmp_path: Path) -> None:
    run = tmp_path / "other"
    shutil.copytree(half, run)
    stages = run / "stages"
    left = [
        *(run / f".{name}.writing" for name in ("timing.json", "config.yaml", "environment.json")),
        *(stages / "01-animal" / name for name in (".probes.json.writing", ".seal.json.writing")),
        *(stages / name for name in (".03-size.writing", ".07-old.answers.jsonl")),
    ]
    for path in left:
        path.write_text("{")
    for folder in (
        stages / ".01-animal.gone",
        stages / ".02-colour.writing",
        stages / "01-animal/.adapter.gone",
    ):
        shutil.copytree(stages / "00-base", folder)
        left.append(folder)
    assert goes_on(run, tmp_path)[0] == whole.results
    assert [path for path in left if path.exists()] == []


def test_another_version_on_the_way_is_said_and_kept(
    half: Path, whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "other"
    shutil.copytree(half, run)
    forget_seal_of(run)
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    environment["versions"]["torch"] = "2.0.0"
    (run / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    forgetmenot.run(RunConfig.model_validate({**config, "output": str(run)}), console=Console(width=10_000))
    assert "Stages up to 01-animal were computed with torch 2.0.0;" in capsys.readouterr().out
    (earlier,) = json.loads((run / "environment.json").read_text(encoding="utf-8"))["earlier"]
    assert (earlier["stages_until"], earlier["versions"]["torch"]) == ("01-animal", "2.0.0")


def test_a_lost_config_is_written_again_by_the_same_command_alone(
    half: Path, whole: Run, tmp_path: Path
) -> None:
    run = tmp_path / "copy"
    shutil.copytree(half, run)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    (run / "config.yaml").unlink()
    other = {**config, "output": str(run), "seed": 5}
    with pytest.raises(UserError, match=r"config\.yaml is missing, and .* holds stages of another config"):
        forgetmenot.run(RunConfig.model_validate(other))
    assert forgetmenot.run(RunConfig.model_validate({**other, "seed": 0})).results == whole.results
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["seed"] == 0
