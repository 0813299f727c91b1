"""Probes, measurements beside the tasks: the protocol, and one file for each."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from forgetmenot.errors import UserError, nearest, validation_sentence
from forgetmenot.probes.drift import Drift
from forgetmenot.probes.embeddings import Embeddings
from forgetmenot.probes.general import General
from forgetmenot.probes.instruction_following import InstructionFollowing
from forgetmenot.probes.layers import Layers
from forgetmenot.probes.safety import Safety
from forgetmenot.probes.shared.probe import Part, Probe, ProbeOptions, RunTask

PROBES: dict[str, type[Probe]] = {
    "general": General,
    "instruction-following": InstructionFollowing,
    "safety": Safety,
    "layers": Layers,
    "embeddings": Embeddings,
    "drift": Drift,
}
ENTRY_POINTS = "forgetmenot.probes"

__all__ = [
    "ENTRY_POINTS",
    "PROBES",
    "Part",
    "Probe",
    "ProbeOptions",
    "RunTask",
    "check_probe",
    "known_probes",
    "make_probe",
]


def known_probes() -> dict[str, type[Probe]]:
    """The probes of this package and those that others give through entry points, by name."""
    others = {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
    return {**others, **PROBES}


def check_probe(name: str, options: Mapping[str, Any]) -> tuple[type[Probe], ProbeOptions]:
    """A probe's class by name, with its options checked; nothing is loaded.

    Raises:
        UserError: If there is no such probe or option, naming the nearest.
    """
    probes = known_probes()
    if name not in probes:
        raise UserError(f"evaluation.probes: there is no probe {name!r}. {nearest(name, probes)}")
    kind = probes[name]
    try:
        return kind, kind.Options(**options)
    except ValidationError as error:
        raise UserError(validation_sentence(error, kind.Options, f"evaluation.probes.{name}")) from error


def make_probe(name: str, options: Mapping[str, Any], data_dir: Path | None) -> Probe:
    """A probe by name, ready to measure.

    Raises:
        UserError: As `check_probe`, and if something that the probe needs is not there.
    """
    kind, checked = check_probe(name, options)
    return kind(checked, data_dir)
