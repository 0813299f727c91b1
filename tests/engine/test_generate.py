"""Generated answers: batches against one prompt at a time, and against arg-max without a cache."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.learner import Learner

V = 97
NEW = 10


def words(eos: int, pad: int | None) -> Any:
    """A tokenizer whose token k is the word "k"."""
    model = WordLevel({str(k): k for k in range(V)}, unk_token="0")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=str(eos), pad_token=None if pad is None else str(pad)
    )


def greedy(model: Any, prompt: tuple[int, ...], eos: int) -> list[int]:
    """The likeliest next token, each time from the whole sequence anew."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + NEW:
        with torch.no_grad():
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == eos:
            tokens.pop()
            break
    return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def prompts() -> list[tuple[int, ...]]:
    """Twenty-two, of one to fourteen tokens, unsorted, one of them twice."""
    generator = torch.Generator().manual_seed(0)
    lengths = [1 + (5 * k) % 14 for k in range(21)]
    drawn = [tuple(torch.randint(3, V, (n,), generator=generator).tolist()) for n in lengths]
    return [*drawn, drawn[2]]


def as_text(tokens: list[int]) -> str:
    return " ".join(map(str, tokens))


@pytest.mark.parametrize("pad", [None, 2], ids=["padded with EOS", "padded with its own token"])
def test_batches_equal_the_argmax_of_each_prompt_alone(
    pad: int | None, llama: Any, prompts: list[tuple[int, ...]]
) -> None:
    unbounded = [greedy(llama, prompt, eos=-1) for prompt in prompts]
    eos = unbounded[0][4]  # a token that this model does write, so that some answers end early
    wanted = [greedy(llama, prompt, eos) for prompt in prompts]
    llama.generation_config.eos_token_id = None
    lengths = {len(answer) for answer in wanted}
    assert min(lengths) < NEW
    assert max(lengths) == NEW

    wanted = [
        [token for token in answer if token != pad] for answer in wanted
    ]  # no text, where it is written
    learner = Learner(llama, words(eos, pad), budget=512)
    done: list[int] = []
    assert learner.generate(prompts, NEW, done.append) == [as_text(answer) for answer in wanted]
    assert done == [22]
    assert [learner.generate([prompt], NEW)[0] for prompt in prompts] == [as_text(a) for a in wanted]


def test_the_models_own_taste_is_not_asked(llama: Any, prompts: list[tuple[int, ...]]) -> None:
    """Many checkpoints bring a generation config that samples and penalises repetition."""
    wanted = [as_text(greedy(llama, prompt, eos=1)) for prompt in prompts]
    llama.generation_config.update(do_sample=True, temperature=3.0, top_k=50, repetition_penalty=5.0)
    llama.generation_config.update(no_repeat_ngram_size=1, num_beams=2, max_length=3)
    assert Learner(llama, words(1, None), budget=512).generate(prompts, NEW) == wanted


def test_generating_restores_the_mode(llama: Any) -> None:
    learner = Learner(llama, words(1, None), budget=512)
    llama.train()
    assert len(learner.generate([(5, 6)], 2)) == 1
    assert llama.training


COMMON = tuple(range(20, 40))


def many(llama: Any, prompts: list[tuple[int, ...]], rows: int) -> int:
    """The positions that `rows` of the longest prompts take."""
    return rows * (max(map(len, prompts)) + NEW)


@pytest.mark.parametrize("shared", [False, True], ids=["no common prefix", "a common prefix"])
def test_answers_do_not_depend_on_the_batch_where_the_margin_shows_a_clear_choice(
    shared: bool, llama: Any, prompts: list[tuple[int, ...]]
) -> None:
    """Of 1, 3 and 16 rows, and against the arg-max of the whole sequence anew."""
    asked = [COMMON + prompt for prompt in prompts] if shared else prompts
    learner = Learner(llama, words(1, None), budget=512)
    runs = [
        learner.write(asked, Decoding(NEW), margins=True, batch_positions=many(llama, asked, rows))
        for rows in (1, 3, 16)
    ]
    for k, prompt in enumerate(asked):
        truth = greedy(llama, prompt, eos=1)
        for answer in (run[k] for run in runs):
            clear = next((n for n, m in enumerate(answer.margins) if m <= 1e-4), len(answer.margins))
            assert len(answer.margins) == len(answer.tokens)
            assert [t for t in answer.tokens if t != 1][:clear] == truth[:clear]
    assert sum(min(answer.margins) > 1e-4 for answer in runs[0]) > 18  # so that the test says something


def test_a_margin_is_the_distance_of_the_two_likeliest_logits(llama: Any) -> None:
    learner = Learner(llama, words(1, None), budget=512)
    [answer] = learner.write([(5, 6, 7)], Decoding(4), margins=True)
    tokens = [5, 6, 7]
    for token, margin in zip(answer.tokens, answer.margins, strict=True):
        with torch.no_grad():
            first, second = llama(input_ids=torch.tensor([tokens])).logits[0, -1].topk(2).values.tolist()
        assert margin == pytest.approx(first - second, abs=1e-5)
        tokens.append(token)


def test_a_common_prefix_goes_through_the_model_once(llama: Any, prompts: list[tuple[int, ...]]) -> None:
    learner = Learner(llama, words(1, None), budget=512)
    seen: list[int] = []
    hook = llama.get_input_embeddings().register_forward_hook(
        lambda _, given, __: seen.append(given[0].numel())
    )
    learner.write([COMMON + prompt for prompt in prompts], Decoding(1))
    hook.remove()
    assert seen == [len(COMMON), len(set(prompts)) * max(map(len, prompts))]


def test_many_draws_from_a_prompt_read_it_once_and_are_those_drawn_alone(llama: Any) -> None:
    learner = Learner(llama, words(1, None), budget=512)
    decoding, seeds = Decoding(NEW, temperature=0.9), range(40)
    asked = [(5, 6, 7) if seed % 2 else (8, 9, 10, 11) for seed in seeds]
    seen: list[int] = []
    hook = llama.get_input_embeddings().register_forward_hook(
        lambda _, given, __: seen.append(given[0].numel())
    )
    together = learner.write(asked, decoding, seeds=seeds)
    hook.remove()
    assert seen[0] == 2 * 4  # two prompts, the shorter one padded
    assert together == [learner.write([asked[k]], decoding, seeds=[k])[0] for k in seeds]


@pytest.mark.parametrize("cached", [True, False], ids=["the engine's cache", "Transformers' generate"])
def test_a_stop_string_ends_an_answer_and_is_no_part_of_it(
    cached: bool, llama: Any, prompts: list[tuple[int, ...]]
) -> None:
    learner = Learner(llama, words(1, None), budget=512, layout="trie" if cached else "padded")
    whole = learner.write(prompts, Decoding(NEW), margins=True)
    stop = f"{whole[0].tokens[3]} {whole[0].tokens[4]}"  # over two tokens
    found = learner.write(prompts, Decoding(NEW, stop=(stop, "none such")), margins=True)
    for one, other in zip(found, whole, strict=True):
        assert one.text == other.text.split(stop)[0]
        assert one.tokens == other.tokens[: len(one.tokens)]
        assert one.margins == pytest.approx(other.margins[: len(one.tokens)], abs=1e-4)
        assert (stop in other.text) == (len(one.tokens) < len(other.tokens) or other.text.endswith(stop))
    assert len(found[0].tokens) <= 5


def test_transformers_own_loop_gives_the_same(llama: Any, prompts: list[tuple[int, ...]]) -> None:
    """What writes for models whose state is no cache of keys and values."""
    engine = Learner(llama, words(1, None), budget=512)
    other = Learner(llama, words(1, None), budget=512, layout="padded")
    near = [(128 - len(prompt)) * (7,) + prompt for prompt in prompts[:3]]  # one position before the last
    for asked in (prompts, [prompt[1:] for prompt in near]):
        one, two = (each.write(asked, Decoding(NEW), margins=True) for each in (engine, other))
        assert [answer.tokens for answer in one] == [answer.tokens for answer in two]
        for a, b in zip(one, two, strict=True):
            assert a.margins == pytest.approx(b.margins, abs=1e-4)


def test_an_answer_ends_at_the_last_position(llama: Any) -> None:
    learner = Learner(llama, words(1, None), budget=512)
    full, one = learner.write([(7,) * 128, (7,) * 127], Decoding(NEW))
    assert full == Answer("", ())
    assert len(one.tokens) == 1


def test_saved_batches_are_not_written_again(llama: Any, prompts: list[tuple[int, ...]]) -> None:
    learner = Learner(llama, words(1, None), budget=512)
    most = many(llama, prompts, 4)
    batches: list[dict[int, Answer]] = []
    whole = learner.write(prompts, Decoding(NEW), margins=True, batch_positions=most, save=batches.append)
    assert len(batches) > 3
    half = {k: answer for batch in batches[::2] for k, answer in batch.items()}
    again: list[dict[int, Answer]] = []
    resumed = learner.write(
        prompts, Decoding(NEW), margins=True, batch_positions=most, done=half, save=again.append
    )
    assert resumed == whole  # to the last bit of each margin
    assert again == batches[1::2]


def test_a_draw_from_few_tokens_follows_the_models_own_odds(llama: Any) -> None:
    prompt, n = (5, 6, 7), 800
    learner = Learner(llama, words(1, None), budget=512)
    with torch.no_grad():
        logits = llama(input_ids=torch.tensor([prompt])).logits[0, -1]
    for decoding, odds in (
        (Decoding(1, temperature=0.7, top_k=4), (logits / 0.7).topk(4)),
        (Decoding(1, temperature=2.0, top_p=0.3), nucleus(logits / 2.0, 0.3)),
    ):
        drawn = learner.write([prompt] * n, decoding, seeds=range(n))
        counts = torch.bincount(torch.tensor([answer.tokens[0] for answer in drawn]), minlength=V)
        values, tokens = odds
        wanted = values.double().softmax(-1) * n
        assert counts.sum() == counts[tokens].sum()
        assert ((counts[tokens] - wanted).abs() < 4.5 * wanted.sqrt() + 1).all()


def nucleus(logits: torch.Tensor, p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The fewest likeliest tokens that together reach p, by counting up."""
    values, tokens = logits.sort(descending=True)
    total, count = 0.0, 0
    for one in logits.softmax(-1)[tokens].tolist():
        if total >= p:
            break
        total, count = total + one, count + 1
    return values[:count], tokens[:count]


def test_a_draw_depends_on_its_seed_and_not_on_its_batch(llama: Any, prompts: list[tuple[int, ...]]) -> None:
    learner = Learner(llama, words(1, None), budget=512)
    decoding = Decoding(NEW, temperature=0.8, top_p=0.9)
    seeds = range(100, 100 + len(prompts))
    whole = learner.write(prompts, decoding, seeds=seeds)
    assert learner.write(prompts, decoding, seeds=seeds, batch_positions=1) == whole
    assert learner.write(prompts[3:5], decoding, seeds=seeds[3:5]) == whole[3:5]
    assert learner.write(prompts, decoding, seeds=range(len(prompts))) != whole


def test_no_prompt_has_no_answer(llama: Any) -> None:
    assert Learner(llama, words(1, None), budget=512).generate([], 2) == []
