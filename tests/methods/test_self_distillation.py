"""On-policy distillation against SciPy and TRL, one sequence at a time; its words, draws and teachers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.self_distillation import SelfDistillation
from forgetmenot.methods.shared.distillation import divergence, likeliest_divergence
from forgetmenot.prompting import Encoded, TokenSequence, choose_prompt
from forgetmenot.prompting.wording import Wording
from forgetmenot.tasks import Example, Task
from tests.written import FEW_WORDS

Plain = Callable[[TokenSequence], Any]
Shaken = Callable[..., None]
ONES = torch.ones(7)


def begun(learner: Learner, stage: Stage, **options: Any) -> SelfDistillation:
    method = make_method("self-distillation", {**FEW_WORDS, "max_new_tokens": 9, **options}, seed=3)
    assert isinstance(method, SelfDistillation)
    method.begin(learner, stage)
    return method


def drawn(learner: Learner, method: SelfDistillation, batch: Sequence[Encoded]) -> list[TokenSequence]:
    """The answers of this step."""
    return method._answered(learner, batch, [method.words.around(one) for one in batch])


def by_scipy(teacher: Any, student: Any, options: dict[str, Any], vocabulary: int) -> Any:
    """The divergence at each token [tokens], by the formulas, one token at a time in fp64."""
    found = []
    reverse, count = options.get("divergence") == "reverse", options.get("top_k", 20) or vocabulary
    for taught, own in zip(log_softmax(teacher, -1), log_softmax(student, -1), strict=True):
        p, q = (own, taught) if reverse else (taught, own)
        kept = np.argsort(-p)[:count]
        p, q = p[kept] - logsumexp(p[kept]), q[kept] - (logsumexp(q[kept]) if reverse else 0)
        found.append((np.exp(p) * (p - q)).sum())
    return np.array(found)


@pytest.mark.parametrize("average", ["token", "example"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 0},
        {"divergence": "reverse"},
        {"divergence": "reverse", "top_k": 0, "skip": 2},
        {"teacher": "ema", "rate": 0.5, "top_k": 3, "skip": 1},
    ],
)
def test_it_is_the_divergence_from_the_demonstrated_teacher(
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Shaken,
    plain: Plain,
    options: dict[str, Any],
    average: str,
) -> None:
    learner.loss_average = average  # type: ignore[assignment]
    method = begun(learner, stage, **options)
    teacher = learner.snapshot()
    shaken()
    if options.get("teacher") == "ema":
        now = learner.snapshot()
        teacher = {name: 0.5 * (value + now[name]) for name, value in teacher.items()}
        method.stepped(learner)
    loss = method.loss(learner, examples)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in learner.trainable().values())
    expected, lengths = 0.0, set()
    for example, one in zip(examples, drawn(learner, method, examples), strict=True):
        prompt, answer = one.tokens[: one.start], one.tokens[one.start :]
        assert prompt == example.prompt
        student = plain(one)
        with learner.with_weights(teacher):
            shown = method.words.around(example)
            taught = plain(TokenSequence(shown + answer, len(shown)))
        skip = options.get("skip", 0)
        found = by_scipy(taught, student, options, learner.model.config.vocab_size)[skip:]
        counts = len(example.answer.tokens) - example.answer.start if average == "token" else 1
        expected += counts * (found.mean() if len(found) else 0)
        lengths.add(len(answer))
    assert max(lengths) == 9, "longer than any demonstration"
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_over_all_tokens_it_is_the_whole_divergence(direction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = [3 * torch.randn(7, 50, generator=generator) for _ in range(2)]
    learned = logits[direction == "forward"].requires_grad_()
    p, q = (one.log_softmax(-1) for one in logits)
    whole = divergence(p, q, ONES)
    for count in (50, 1000):
        cut = likeliest_divergence(p, q, ONES, count, both=direction == "reverse")
        assert cut.item() == pytest.approx(whole.item(), rel=1e-6)
        one, other = (torch.autograd.grad(value, learned, retain_graph=True)[0] for value in (whole, cut))
        assert torch.allclose(one, other, atol=1e-6)
    few = likeliest_divergence(p, q, ONES, 5, both=direction == "reverse")
    assert abs(few.item() - whole.item()) > 1e-3


def test_a_whole_stage_is_the_same_over_all_tokens(
    learner: Learner, stage: Stage, examples: list[Encoded], shaken: Shaken
) -> None:
    every = learner.model.config.vocab_size
    for direction in ("forward", "reverse"):
        losses = []
        for count in (0, every):
            method = begun(learner, stage, divergence=direction, top_k=count)
            losses.append(method.loss(learner, examples).item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def per_row(count: int, direction: str, student: Tensor, teacher: Tensor) -> Tensor:
    """Ours, one row at a time, from logits."""
    own, taught = student.log_softmax(-1), teacher.log_softmax(-1)
    method = SelfDistillation(
        SelfDistillation.Options.model_validate({"top_k": count, "divergence": direction})
    )
    return torch.stack(
        [method._divergence(own[k : k + 1], taught[k : k + 1], ONES[:1]) for k in range(len(own))]
    )


def test_each_token_is_what_trl_computes() -> None:
    loss_utils = pytest.importorskip(
        "trl.experimental.sdft.loss_utils", reason="TRL, of the extra bench, is not installed"
    )
    generator = torch.Generator().manual_seed(1)
    student, teacher = (4 * torch.randn(7, 300, generator=generator) for _ in range(2))
    alpha = {"forward": 0.0, "reverse": 1.0}
    for direction, one in alpha.items():
        theirs = loss_utils.compute_full_logit_self_distillation_loss(
            student, teacher, distillation_alpha=one
        )
        assert torch.allclose(per_row(0, direction, student, teacher), theirs, rtol=0, atol=1e-5)
    for count in (5, 20, 300):
        theirs = loss_utils.compute_topk_self_distillation_loss(
            student, teacher, distillation_topk=count, distillation_alpha=1.0, distillation_add_tail=False
        )
        assert torch.allclose(per_row(count, "reverse", student, teacher), theirs, rtol=0, atol=1e-5)
        likeliest = teacher.topk(count, dim=-1).indices  # Thinking Machines' support, in TRL's divergence
        theirs = loss_utils.compute_divergence(
            student.log_softmax(-1).gather(-1, likeliest),
            teacher.gather(-1, likeliest).log_softmax(-1),
            alpha=0.0,
        )
        assert torch.allclose(per_row(count, "forward", student, teacher), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "trl"),
    [
        ({"top_k": 0}, {"distillation_mode": "full_logits", "distillation_alpha": 0.0}),
        (
            {"divergence": "reverse", "top_k": 20, "skip": 2},
            {"distillation_mode": "topk_logits", "distillation_alpha": 1.0, "distillation_topk": 20},
        ),
    ],
)
def test_a_batchs_loss_is_what_trls_trainer_makes_of_it(
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Shaken,
    plain: Plain,
    options: dict[str, Any],
    trl: dict[str, Any],
) -> None:
    """The mean over examples of each answer's mean, padded as TRL has it."""
    trainer = pytest.importorskip(
        "trl.experimental.sdft.sdft_trainer", reason="TRL, of the extra bench, is not installed"
    )
    learner.loss_average = "example"
    method = begun(learner, stage, **options)
    shaken()
    own = drawn(learner, method, examples)
    longest = max(len(one.tokens) - one.start for one in own)
    logits = torch.zeros(2, len(own), longest, learner.model.config.vocab_size)
    mask, ids = torch.zeros(len(own), longest), torch.zeros(len(own), longest, dtype=torch.long)
    for k, (example, one) in enumerate(zip(examples, own, strict=True)):
        answer = one.tokens[one.start :]
        shown = method.words.around(example)
        logits[0, k, : len(answer)] = torch.from_numpy(plain(one))
        with learner.with_weights(method.teacher):
            logits[1, k, : len(answer)] = torch.from_numpy(plain(TokenSequence(shown + answer, len(shown))))
        mask[k, options.get("skip", 0) : len(answer)] = 1
        ids[k, : len(answer)] = torch.tensor(answer)
    args = {"distillation_topk": None, "distillation_add_tail": False, "distillation_is_clip": None, **trl}
    fake = SimpleNamespace(
        args=SimpleNamespace(**args),
        accelerator=SimpleNamespace(gather=lambda value: value),
        _log_self_distillation_metric=lambda *_: None,
    )
    theirs = trainer.SDFTTrainer._compute_self_distillation_loss(
        fake, learner.model, {}, trainer.DistillationLogits(ids, mask, logits[0], logits[1])
    )
    ours = method.loss(learner, examples).item() / len(examples)
    assert ours == pytest.approx(theirs.item(), abs=1e-5)


def chat(learner: Learner) -> Stage:
    """A stage whose prompts are chats."""
    prompts = {"default": {"template": "{{ q }}", "chat": True, "system": "Be brief."}}
    task = Task(
        name="asked",
        kind="answer",
        metric="exact_match",
        train=[Example(f"{k}", {"q": f"Q{k}"}, None, f"A{k}") for k in range(3)],
        select=[],
        score=[],
        prompts=prompts,
    )
    wording = Wording(task, choose_prompt(task, "default"), task.train, learner.tokenizer, 128)
    return Stage(1, ("asked",), data={"asked": wording.encode(task.train)}, wordings={"asked": wording})


def test_in_a_chat_the_words_stand_in_the_users_turn(learner: Learner) -> None:
    """As the paper's code and TRL's trainer have it: one turn of prompt, demonstration and request."""
    stage = chat(learner)
    method = begun(learner, stage, before="\nSee: ", after="\nNow you.")
    for k, example in enumerate(stage.data["asked"]):
        turns = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"Q{k}\nSee: A{k}\nNow you."},
        ]
        whole = learner.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert learner.tokenizer.decode(method.words.around(example)) == whole


def test_elsewhere_the_prompt_follows_once_more(
    learner: Learner, stage: Stage, examples: list[Encoded]
) -> None:
    method = begun(learner, stage, before="\nSee:", after="\nNow you.")
    text = learner.tokenizer.decode(method.words.around(examples[0]))
    prompt, answer = (learner.tokenizer.decode(examples[0].prompt), examples[0].answer.tokens)
    demonstration = learner.tokenizer.decode(answer[examples[0].answer.start : -1])  # without EOS
    assert text == f"{prompt}\nSee:{demonstration}\nNow you.\n\n{prompt}"


def test_the_default_words_are_the_papers() -> None:
    options = SelfDistillation.Options()
    assert f"x{options.before}c{options.after}" == (
        "x\n\nThis is an example for a response to the question:\nc\n\n"
        "Now answer with a response of your own, including the thinking process."
    )


def test_without_the_demonstration_there_is_nothing_to_learn(
    learner: Learner, stage: Stage, examples: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = begun(learner, stage, top_k=0)
    assert method.loss(learner, examples).item() > 0.01
    monkeypatch.setattr(type(method.words), "around", lambda self, example: example.prompt)
    loss = method.loss(learner, examples)
    assert abs(loss.item()) < 1e-6
    gradients = torch.autograd.grad(loss, list(learner.trainable().values()))
    assert max(g.abs().max().item() for g in gradients) < 1e-5


def test_in_several_packs_it_is_the_same(
    learner: Learner, stage: Stage, examples: list[Encoded], shaken: Shaken
) -> None:
    method = begun(learner, stage)
    shaken()
    found: list[tuple[int, Tensor, Tensor]] = []
    for budget in (4096, 64):
        learner.budget = budget
        packs = len(learner.cut(drawn(learner, method, examples)))
        loss = method.loss(learner, examples)
        gradients = torch.autograd.grad(loss, list(learner.trainable().values()))
        found.append((packs, loss.detach(), torch.cat([g.flatten() for g in gradients])))
    (one, loss, gradient), (several, other, cut) = found
    assert one == 1 < several
    assert other.item() == pytest.approx(loss.item(), rel=1e-5)
    assert (cut - gradient).norm() < 1e-4 * gradient.norm()


def test_an_answer_ends_where_the_teacher_has_no_position_left(
    learner: Learner, stage: Stage, examples: list[Encoded]
) -> None:
    method = begun(learner, stage, max_new_tokens=1000)
    positions = learner.max_positions or 0
    reached = 0
    for example, one in zip(examples, drawn(learner, method, examples), strict=True):
        taught = len(method.words.around(example)) + len(one.tokens) - one.start
        assert taught <= positions
        reached += taught == positions
    assert reached
    assert method.loss(learner, examples).isfinite()


def test_the_teacher_stays_or_is_the_moving_average(learner: Learner, stage: Stage, shaken: Shaken) -> None:
    frozen, average = begun(learner, stage), begun(learner, stage, teacher="ema", rate=0.25)
    first = learner.snapshot()
    expected = {name: value.double() for name, value in first.items()}
    for _ in range(3):
        shaken(0.5)
        frozen.stepped(learner)
        average.stepped(learner)
        now = learner.snapshot()
        expected = {name: 0.75 * value + 0.25 * now[name].double() for name, value in expected.items()}
    for name, value in expected.items():
        assert torch.equal(frozen.teacher[name], first[name])
        assert torch.allclose(average.teacher[name].double(), value, atol=1e-6)
    assert frozen.training_state() == {"steps": 3}
    assert average.training_state().keys() == {"steps", *(f"teacher.{name}" for name in first)}


def test_an_answer_follows_from_its_example_seed_stage_and_step(
    learner: Learner, stage: Stage, examples: list[Encoded]
) -> None:
    """Not from the batch, its order, or what else was drawn."""
    method = begun(learner, stage)
    first = drawn(learner, method, examples)
    torch.manual_seed(99)
    assert drawn(learner, method, examples[::-1]) == first[::-1]
    assert drawn(learner, method, examples[3:5]) == first[3:5]
    method.stepped(learner)
    assert drawn(learner, method, examples) != first
    other = SelfDistillation(method.options, seed=2)
    other.begin(learner, stage)
    assert drawn(learner, other, examples) != first


def test_what_cannot_be_demonstrated_is_said_before_training(learner: Learner, stage: Stage) -> None:
    text = replace(stage, data={"size": [replace(stage.data["size"][0], prompt=())]})
    with pytest.raises(UserError, match="'size' is plain text"):
        begun(learner, text)
    one = stage.data["size"][0]
    long = replace(one, answer=TokenSequence(one.answer.tokens * 10, one.answer.start))
    with pytest.raises(
        UserError,
        match=r"as long takes \d+ tokens, and the model has 128 positions.*max_length to at most 60",
    ):
        begun(learner, replace(stage, data={"size": [long]}))
    asked = chat(learner)
    (first, *_) = asked.data["asked"]
    odd = replace(first, answer=TokenSequence((5, 6, 7), 2), prompt=(5, 6))
    with pytest.raises(UserError, match=r"example '0': .*the prompt does not end with one"):
        begun(learner, replace(asked, data={"asked": [odd]}))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rate": 0}, r"method\.rate"),
        ({"rate": 1.1}, r"method\.rate"),
        ({"rate": 0.5}, "rate means nothing with teacher: frozen"),
        ({"teacher": "base"}, r"method\.teacher: .*'frozen'"),
        ({"top_k": -1}, r"method\.top_k"),
        ({"max_new_tokens": 0}, r"method\.max_new_tokens"),
        ({"strength": 1}, r"method\.strength"),
    ],
)
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_method("self-distillation", wrong, 0)
