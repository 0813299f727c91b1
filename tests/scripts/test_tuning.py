"""Equal tuning: the same number of trials for every method, and the best of them in the ledger."""

import json
from pathlib import Path
from typing import Any

import pytest

from forgetmenot.methods import METHODS
from forgetmenot.studies.config import expand_study, load_study
from forgetmenot.tasks import expand
from scripts import tuning
from scripts.tuning import LEDGER, PAGE, RATE, STRENGTH, TRIALS, TRIALS_FILE, champion, choose, recipe, trials


def _study(scores: dict[str, list[float]], failed: str | None = None) -> dict[str, Any]:
    """What study.json would hold, with a score for each trial of some methods."""
    runs = []
    for method, values in scores.items():
        for k, ((options, rate), value) in enumerate(zip(trials(method), values, strict=True)):
            name = f"{method}-{k}"
            runs.append(
                {
                    "run": name,
                    "failed": "It broke." if name == failed else None,
                    "varies": {
                        "method": {"name": method, **options} if options else method,
                        "training.learning_rate": rate,
                    },
                    "figures": {"average_performance": value},
                }
            )
    return {"runs": runs}


def test_every_method_has_as_many_trials_within_its_ranges() -> None:
    for method, searched in STRENGTH.items():
        assert method in METHODS
        found = trials(method)
        assert len(found) == TRIALS
        assert len({repr(one) for one in found}) == TRIALS, "no trial twice"
        assert trials(method) == found, "drawn by a fixed seed"
        for options, rate in found:
            METHODS[method].Options(**options)
            assert RATE[0] <= rate <= RATE[1]
            if searched is not None:
                name, low, high = searched
                assert low <= options[name] <= high


def test_the_recipe_of_trials_is_what_the_script_draws() -> None:
    assert TRIALS_FILE.read_text(encoding="utf-8") == recipe()
    runs = expand_study(load_study(TRIALS_FILE))
    assert len(runs) == TRIALS * len(STRENGTH)
    assert {run.config.evaluation.split for run in runs} == {"select"}


def test_no_task_is_tuned_on_and_scored_and_no_seed_serves_twice() -> None:
    tuned, scored = load_study(TRIALS_FILE), load_study(LEDGER)
    assert not set(expand(tuned.base_config.tasks)) & set(expand(scored.base_config.tasks))
    pilot = scored.protocol.pilot
    assert pilot is not None
    seeds = [tuned.base_config.seed, *pilot.seeds, *scored.grid["seed"]]
    assert len(set(seeds)) == len(seeds)
    methods = {run.config.method.name for run in expand_study(scored)}
    assert methods == set(STRENGTH)


def test_the_page_states_the_claims_of_the_recipe() -> None:
    page = PAGE.read_text(encoding="utf-8").replace("`", "")
    for claim in load_study(LEDGER).protocol.claims:
        assert claim.says.rstrip(".") in page


def test_the_best_trial_is_taken_and_of_equals_the_first() -> None:
    best = choose(_study({"ewc": [0.3, 0.5, 0.5, 0.2], "replay": [0.9, 0.1, 0.1, 0.1]}))
    assert {method: one["run"] for method, one in best.items()} == {"ewc": "ewc-1", "replay": "replay-0"}
    with pytest.raises(SystemExit, match="1 trials have no result: ewc-3"):
        choose(_study({"ewc": [0.3, 0.5, 0.5, 0.2]}, failed="ewc-3"))


def test_the_champion_has_no_past_data() -> None:
    scores = {method: [0.1] * 4 for method in STRENGTH}
    scores |= {"replay": [0.9] * 4, "adapter-per-task": [0.9] * 4, "lwf": [0.1, 0.6, 0.1, 0.1]}
    assert champion(choose(_study(scores))) == "lwf"


def test_choices_go_into_the_page_and_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, page = tmp_path / "ledger.yaml", tmp_path / "protocol.md"
    ledger.write_text(LEDGER.read_text(encoding="utf-8"), encoding="utf-8")
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(tuning, "LEDGER", ledger)
    monkeypatch.setattr(tuning, "PAGE", page)
    scores = {method: [0.1, 0.2, 0.3, 0.2] for method in STRENGTH}
    scores["kl"] = [0.1, 0.7, 0.3, 0.2]
    tuning.write_choices(_study(scores))
    study = load_study(ledger)
    by_method = {run.config.method.name: run.config for run in expand_study(study)}
    assert by_method.keys() == STRENGTH.keys()
    for method, config in by_method.items():
        options, rate = trials(method)[1 if method == "kl" else 2]
        assert config.training.learning_rate == rate
        assert config.method.options == options
        wanted = {"o-lora": "new", "adapter-per-task": "new", "weight-averaging": "merge"}
        assert config.adapter.per_stage == wanted.get(method, "continue")
    assert study.base_config.training.learning_rate == by_method["sequential"].training.learning_rate
    second = study.protocol.claims[1]
    assert set(second.conditions[0].weights) == {"sequential", "kl"}
    assert set(second.conditions[1].weights) == {"sequential", "kl"}
    text = page.read_text(encoding="utf-8")
    assert "**0.700**" in text
    assert text.count("\n| ") > TRIALS * len(STRENGTH)
    tuning.write_choices(_study(scores))
    assert page.read_text(encoding="utf-8") == text, "written twice it stays the same"


def test_the_study_of_trials_is_read_from_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.json").write_text(json.dumps(_study({"ewc": [0.3, 0.5, 0.5, 0.2]})), encoding="utf-8")
    seen: list[Any] = []
    monkeypatch.setattr(tuning, "write_choices", seen.append)
    monkeypatch.setattr("sys.argv", ["tuning", "choose", str(tmp_path)])
    tuning.main()
    assert len(seen[0]["runs"]) == 4
