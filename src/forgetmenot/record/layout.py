"""The layout of a run's directory, and of a study's: the names of files and stages."""

from pathlib import Path

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
EVENTS = "events.jsonl"
TIMING = "timing.json"
RESULTS = "results.json"
REPORT = "report.html"
STUDY = "study.yaml"
STAGES = "stages"
READINGS = "readings"
PROBES = "probes"
RECEIPTS = "receipts"

BASE = "00-base"
"""The stage of the untouched base model."""

LAST = "last"
"""What users call the last finished stage of a run."""

PREDICTIONS = "predictions.parquet"
"""The answers of the headline reading, in a stage's folder."""

SCORES = "scores.json"
"""A stage's scores; a stage that has it is finished."""

TRAINED = "trained.json"
"""In a stage's folder while it is scored: which files its training has left, and how long it took."""

TRAINING = "training.jsonl"
"""A stage's training log: one line for each optimizer step."""

REHEARSED = "rehearsed.jsonl"
"""In a stage's folder: the examples of earlier tasks that it trained on, as text, one a line."""

ASKED_AGAIN = "asked_again.json"
"""In the base's folder: how many answers another order and batch size change; see `runs.again`."""

COST = "cost.json"
"""A stage's input positions in training and in scoring, and what it keeps for the next one."""

MEASURED = "probes.json"
"""What probes found of a stage."""

SEAL = "seal.json"
"""The size and hash of the files of a stage, or of the run's own; see `record.seal`."""


def predictions_file(reading: str) -> str:
    """The file of a reading's answers, in a stage's folder; the headline reading is called ""."""
    return f"predictions-{reading}.parquet" if reading else PREDICTIONS


def log_in_training(run_dir: Path, stage: str) -> Path:
    """The training log of a stage that is in training; it is beside where the stage will stand."""
    return run_dir / STAGES / f".{stage}.training.jsonl"


def stage_folder(run_dir: Path, stage: str) -> Path:
    """The folder of a stage."""
    return run_dir / STAGES / stage
