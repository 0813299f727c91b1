"""States of layers that never learn: kept once, and the numbers are those of whole passes."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from forgetmenot.engine import state_files
from forgetmenot.engine.forward import edge_log_probs
from forgetmenot.engine.frozen_states import FrozenSet, FrozenStates, keep_states
from forgetmenot.engine.guard import try_frozen
from forgetmenot.engine.laid_out import evaluating
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.lower import digest_below
from forgetmenot.engine.precision import autocast
from forgetmenot.engine.state_files import BLOCK, StateFiles
from forgetmenot.models.adapters.full import FULL
from forgetmenot.models.layers import decoder_layers
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting.encoded import TokenSequence
from tests.engine.test_forward import ON_THE_TRIE, Build, assert_equal, one_by_one, with_gradients

FIRST = 2  # of three layers


@contextmanager
def unseen(_: str, __: int) -> Iterator[Any]:
    yield lambda count: None


@pytest.fixture
def learner(build: Build) -> Learner:
    return Learner(build(ON_THE_TRIE["llama"]()), tokenizer=None, budget=64)


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    return StateFiles(tmp_path / "states", 10**9)


def keep(
    learner: Learner, parts: list[list[TokenSequence]], files: StateFiles | None, about: str = "a"
) -> tuple[FrozenStates, list[str]]:
    sets = [FrozenSet.of(str(k), part, learner.budget) for k, part in enumerate(parts)]
    frozen = try_frozen(learner, FIRST, parts[0])
    assert isinstance(frozen, FrozenStates), frozen
    with learner.below(FIRST) as compute:
        said = keep_states(frozen, sets, about, compute, files, unseen)
    return frozen, said


@pytest.mark.parametrize("name", ON_THE_TRIE)
def test_likelihoods_and_gradients_equal_those_of_whole_passes(
    name: str, build: Build, sequences: list[TokenSequence], files: StateFiles
) -> None:
    model = build(ON_THE_TRIE[name]())
    FULL.adapt(model, AdapterSettings(kind="full", layers={"from": FIRST}), 1, 0)
    truth = one_by_one(model, sequences)
    learner = Learner(model, tokenizer=None, budget=64)
    learner.frozen, _ = keep(learner, [sequences[:5], sequences], files)
    below = _computed_below(model)
    packs = learner.cut(sequences)
    assert len(packs) > 1
    values = torch.cat([learner.forward([sequences[k] for k in pack]) for pack in packs])
    order = torch.tensor([k for pack in packs for k in pack])
    assert_equal(with_gradients(model, torch.empty_like(values).index_copy(0, order, values)), truth)
    scored = learner.log_likelihoods(sequences)
    assert ((scored - truth[0]).abs() / truth[0].abs()).max() < 1e-5
    assert below == [], "no lower layer has computed anything"


def _computed_below(model: Any) -> list[str]:
    """A list of the modules within the lower layers that compute something from now on."""
    found: list[str] = []
    for layer in decoder_layers(model)[:FIRST]:
        for name, module in layer.named_modules():
            if name:
                module.register_forward_hook(lambda *_, name=name: found.append(name))
    return found


def test_scoring_continues_from_a_common_prefix(build: Build, sequences: list[TokenSequence]) -> None:
    head = sequences[0].tokens
    behind = [TokenSequence(head + s.tokens, len(head) + s.start) for s in sequences]
    model = build(ON_THE_TRIE["gemma3"]())
    learner = Learner(model, tokenizer=None, budget=32)
    truth = learner.log_likelihoods(behind)
    learner.frozen, _ = keep(learner, [behind], None)
    arranged = learner.arrange(behind)
    assert len(arranged.prefix) == len(head)
    assert all(packed.lower is not None for _, packed in arranged.packs)
    assert (learner.log_likelihoods(behind) - truth).abs().max() < 1e-4


def test_in_bf16_a_state_is_to_the_bit_what_a_whole_pass_has_there(
    build: Build, sequences: list[TokenSequence], files: StateFiles
) -> None:
    model = build(ON_THE_TRIE["llama"]())
    learner = Learner(model, tokenizer=None, budget=64, precision="bf16")
    frozen, _ = keep(learner, [sequences], files)
    seen: list[Tensor] = []
    hook = decoder_layers(model)[FIRST].register_forward_pre_hook(
        lambda _, inputs, named: seen.append((inputs[0] if inputs else named["hidden_states"])[0]),
        with_kwargs=True,
    )
    with evaluating(model), autocast(learner.device, "bf16"):
        for packed in frozen.sets[0].packs:
            edge_log_probs(model, packed)
    hook.remove()
    assert torch.equal(torch.cat(seen), frozen.states[0])


def test_a_warm_run_reads_what_a_cold_one_computed(
    learner: Learner, sequences: list[TokenSequence], files: StateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, _ = keep(learner, [sequences], files)
    held, _ = keep(learner, [sequences], None)
    monkeypatch.setattr(StateFiles, "write", lambda *_: pytest.fail("it is there"))
    warm, said = keep(learner, [list(reversed(sequences))], files)
    assert said == []
    assert torch.equal(cold.states[0], warm.states[0])
    assert torch.equal(cold.states[0], held.states[0])


def test_what_no_set_holds_goes_through_whole(learner: Learner, sequences: list[TokenSequence]) -> None:
    stranger = TokenSequence((90, 91, 92, 93), 2)
    truth = learner.log_likelihoods([stranger, sequences[0]])
    learner.frozen, _ = keep(learner, [sequences], None)
    assert learner._pack([stranger, sequences[0]]).lower is None
    assert torch.equal(learner.log_likelihoods([stranger, sequences[0]]), truth)
    beginning = TokenSequence(sequences[0].tokens[:-1], 1)
    assert learner._pack([beginning]).lower is not None, "what a known sequence begins with is known"


def test_deeper_states_are_asked_of_a_whole_pass(learner: Learner, sequences: list[TokenSequence]) -> None:
    prompts = [sequence.tokens for sequence in sequences if len(sequence.tokens) > 3]
    truth = learner.hidden(prompts, layer=1)
    learner.frozen, _ = keep(learner, [sequences], None)
    assert torch.equal(learner.hidden(prompts, layer=1), truth)


def test_the_hash_of_what_lies_below(build: Build) -> None:
    """It follows from the lower weights and from nothing above."""
    model = build(ON_THE_TRIE["llama"]())
    before = digest_below(model, FIRST)
    layers: Any = decoder_layers(model)
    with torch.no_grad():
        layers[FIRST].mlp.up_proj.weight.add_(1)
    assert digest_below(model, FIRST) == before
    with torch.no_grad():
        layers[FIRST - 1].mlp.up_proj.weight[0, 0].add_(1e-3)
    assert digest_below(model, FIRST) != before
    assert digest_below(model, FIRST - 1) != before


def test_buffers_and_scales_are_in_the_hash(build: Build) -> None:
    """As of weights in eight bits, which are no parameters."""
    model = build(ON_THE_TRIE["llama"]())
    lower, upper = decoder_layers(model)[0], decoder_layers(model)[FIRST]
    for layer in (lower, upper):
        layer.register_buffer("scale", torch.tensor(1.0))
    before = digest_below(model, FIRST)
    cast(Tensor, upper.scale).mul_(2)
    assert digest_below(model, FIRST) == before
    cast(Tensor, lower.scale).mul_(2)
    assert digest_below(model, FIRST) != before


def test_a_folder_that_is_only_read_serves_what_it_has(
    learner: Learner, sequences: list[TokenSequence], files: StateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, _ = keep(learner, [sequences], files)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr(StateFiles, "write", lambda *_: pytest.fail("the states are there"))
    warm, said = keep(learner, [sequences], files)
    assert said == []
    assert torch.equal(warm.states[0], cold.states[0])


def test_a_file_in_the_folders_place_is_said_once(
    learner: Learner, sequences: list[TokenSequence], files: StateFiles
) -> None:
    files.folder.touch()
    held, said = keep(learner, [sequences[:5], sequences], files)
    assert len(held.states) == 2
    assert len(said) == 1
    assert "held in memory" in said[0]


def test_two_that_write_at_once_both_have_whole_states(
    learner: Learner, sequences: list[TokenSequence], files: StateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since `fmn cache --clear` has removed the lock; the second process is played by this one."""
    truth, _ = keep(learner, [sequences], None)
    states, said = truth.states[0], list[str]()

    def slowly() -> Iterator[Tensor]:
        yield states[:5]
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 1)
            found = files.write("key", len(states), iter([states]), said)
            assert found is not None
            assert torch.equal(found, states)
        yield states[5:]

    own = files.write("key", len(states), slowly(), said)
    assert said == []
    assert own is not None
    assert torch.equal(own, states)


def test_what_a_killed_run_was_writing_goes_in_time(
    learner: Learner, sequences: list[TokenSequence], files: StateFiles
) -> None:
    files.folder.mkdir()
    dead, live = (files.folder / f".{name}.states.77.writing" for name in ("dead", "live"))
    for path in (dead, live):
        path.write_bytes(b" " * 100)
    os.utime(dead, (0, 0))
    keep(learner, [sequences], files)
    assert not dead.exists()
    assert live.exists()


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "another's", "no header", "empty"])
def test_a_damaged_file_is_made_anew_and_said(
    damage: str, learner: Learner, sequences: list[TokenSequence], files: StateFiles
) -> None:
    whole, _ = keep(learner, [sequences], None)
    keep(learner, [sequences], files)
    (path,) = files.folder.glob("*.states")
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[:-7]
    elif damage == "a flipped bit":
        data[BLOCK + 100] ^= 1
    elif damage == "another's":
        data = data.replace(path.stem.encode(), b"0" * len(path.stem))
    elif damage == "no header":
        data[:BLOCK] = b"\xff" * BLOCK
    else:
        data = bytearray()
    path.unlink()  # a reader keeps the old file
    path.write_bytes(data)
    again, said = keep(learner, [sequences], files)
    assert len(said) == 1
    assert "is damaged" in said[0]
    assert torch.equal(again.states[0], whole.states[0])
    assert keep(learner, [sequences], files)[1] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_on_a_full_disk_it_is_held_in_memory_and_said(
    learner: Learner, sequences: list[TokenSequence], files: StateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = keep(learner, [sequences], None)

    @contextmanager
    def full(_: Path, **__: Any) -> Iterator[Path]:
        yield Path("/dev/full")

    monkeypatch.setattr(state_files, "written_whole", full)
    held, said = keep(learner, [sequences], files)
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert torch.equal(held.states[0], whole.states[0])


def test_the_folder_is_kept_under_its_bound(
    learner: Learner, sequences: list[TokenSequence], files: StateFiles
) -> None:
    keep(learner, [sequences[:6]], files)
    (first,) = files.folder.glob("*.states")
    small = StateFiles(files.folder, int(1.5 * first.stat().st_size))
    second, _ = keep(learner, [sequences[:6]], small, about="b")
    assert not first.exists(), "the older made room"
    assert second.states[0].isfinite().all()
    assert len(list(files.folder.glob("*.states"))) == 1


def test_two_processes_compute_each_set_once(tmp_path: Path) -> None:
    """Each writes what it has computed into a log: no set is there twice."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    computed = sorted(log.read_text() for log in tmp_path.glob("*.log"))
    assert sorted("".join(computed)) == sorted("abcdef")


def _work(folder: Path) -> None:
    """Keep the states of six sets, of a model that is no model."""
    from forgetmenot.engine.lower import LowerStates

    log = (folder / f"{os.getpid()}.log").open("w")
    names = "abcdef"
    sets = [FrozenSet.of(name, [TokenSequence((ord(name), 1, 2, 3), 1)], budget=8) for name in names]

    def compute(packed: Any) -> LowerStates:
        log.write(chr(packed.tokens[0, 0]))
        log.flush()
        states = torch.from_numpy(packed.tokens[0]).float()[:, None].repeat(1, 4)
        return LowerStates(1, False, lambda: states)

    frozen = FrozenStates(1, False, ())
    assert keep_states(frozen, sets, "", compute, StateFiles(folder / "states", 10**9), unseen) == []
    assert [int(states[0, 0]) for states in frozen.states] == [ord(name) for name in names]
