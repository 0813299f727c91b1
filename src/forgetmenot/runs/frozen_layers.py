"""Before a run's first stage: what its layers that never learn give, computed once for all its sequences."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.frozen_states import FrozenSet, FrozenStates, keep_states
from forgetmenot.engine.guard import try_frozen
from forgetmenot.engine.lower import digest_below
from forgetmenot.engine.state_files import StateFiles
from forgetmenot.models.layers import decoder_layers, first_learning
from forgetmenot.paths import cache_folder
from forgetmenot.prompting import TokenSequence
from forgetmenot.record.cache import FROZEN_LAYERS
from forgetmenot.runs.display import Display
from forgetmenot.runs.session import Session

GB = 1_000_000_000


@dataclass(frozen=True)
class FrozenPlan:
    """What is going to be kept.

    Attributes:
        states: What keeps it.
        sets: The run's sequences.
        about: All that the states depend on beside their tokens.
        files: Where they lie; None for memory alone.
        size: Their bytes.
    """

    states: FrozenStates
    sets: tuple[FrozenSet, ...]
    about: str
    files: StateFiles | None
    size: int

    @property
    def count(self) -> int:
        """How many states there are."""
        return sum(one.states for one in self.sets)

    @property
    def missing(self) -> int:
        """How many of them are not on disk."""
        return sum(
            one.states for one in self.sets if self.files is None or not self.files.has(one.key(self.about))
        )


def plan_frozen(session: Session, asked: Mapping[str, Sequence[TokenSequence]]) -> FrozenPlan | str:
    """What can be kept of the layers that never learn; or why nothing is, in words.

    Args:
        session: With the plain base model, which the guard has examined.
        asked: What the run trains on and scores, by a name for each set of sequences.
    """
    learner, most = session.learner, session.config.adapter.frozen_cache_gb
    first = first_learning(session.learner.model, session.config.adapter.layers)
    found = _found_exact(session, first, asked)
    if isinstance(found, str):
        return found
    sets = tuple(
        FrozenSet.of(name, sequences, learner.budget) for name, sequences in asked.items() if sequences
    )
    size = sum(one.states for one in sets) * found.states[0][0].nbytes
    if size > most * GB:
        return f"what they give takes {size / GB:.2f} GB, and adapter.frozen_cache_gb is {most:g}"
    folder = cache_folder()
    files = None if folder is None else StateFiles(folder / FROZEN_LAYERS, int(most * GB))
    return FrozenPlan(found, sets, _about(session, first), files, size)


def keep_frozen(session: Session, asked: Mapping[str, Sequence[TokenSequence]], display: Display) -> None:
    """Keep the states that enter the first layer that learns; the learner begins there from now on.

    Args:
        session: As `plan_frozen` takes it.
        asked: As there.
        display: Where to say and show it.
    """
    first = first_learning(session.learner.model, session.config.adapter.layers)
    session.identity["frozen_states"] = False
    if first == 0:
        return
    layers = f"The {first} lower of {len(decoder_layers(session.learner.model))} layers do not learn"
    plan = plan_frozen(session, asked)
    if isinstance(plan, str):
        display.say(f"{layers}, and every pass computes them all the same: {plan}.")
        return
    held = "held in memory, for there is no cache folder"
    where = held if plan.files is None else f"kept in {plan.files.folder}"
    display.say(
        f"{layers}: their states of {plan.count:,} token prefixes ({plan.size / GB:.2f} GB) are {where}."
    )
    with session.learner.below(first) as compute:
        said = keep_states(plan.states, plan.sets, plan.about, compute, plan.files, display.progress)
    for sentence in said:
        display.say(sentence)
    session.learner.frozen = plan.states
    session.identity["frozen_states"] = True


def _found_exact(
    session: Session, first: int, asked: Mapping[str, Sequence[TokenSequence]]
) -> FrozenStates | str:
    """What the guard says of a pass that begins with the first layer that learns."""
    if session.config.adapter.frozen_cache_gb == 0:
        return "adapter.frozen_cache_gb is 0"
    if session.learner.layout != "trie":
        return f"this model takes {session.learner.layout} batches, not the trie"
    if shards.wanted():
        return "the model is sharded"
    some = next((sequences for sequences in asked.values() if sequences), None)
    if some is None:
        return "the run trains on nothing and scores by what the model writes"
    own = try_frozen(session.learner, first, some)
    return ranks.agreed(lambda: own if isinstance(own, str) else None) or own


def _about(session: Session, first: int) -> str:
    """All that the states depend on beside their tokens: weights, code, dtype, threads, kernel, machine."""
    found = session.identity
    names = ("device", "threads", "precision", "dtype", "quantization", "attention")
    about = {name: found[name] for name in names}
    about |= {name: version(name) for name in ("torch", "transformers")}
    about["machine"] = torch.backends.cpu.get_cpu_capability()
    about["weights"] = digest_below(session.learner.model, first)
    if session.config.model.trust_remote_code:  # code of the model's own is part of its revision
        about["model"] = found["model_revision"]
    return json.dumps(about, sort_keys=True)
