"""vLLM's part, against a stand-in for its documented interface that answers by this engine."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetmenot.engine.decoding import Decoding
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.vllm_backend import check_vllm, write_by_vllm
from forgetmenot.errors import UserError

Made = dict[str, Any]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Made:
    """vLLM's LLM and SamplingParams as its documentation describes them; what they were given."""
    made: Made = {"params": []}

    class SamplingParams:
        def __init__(
            self, *, temperature: float, top_k: int, top_p: float, max_tokens: int, **named: Any
        ) -> None:
            assert set(named) == {"stop", "stop_token_ids", "skip_special_tokens", "seed", "logprobs"}
            self.__dict__.update(
                named, temperature=temperature, top_k=top_k, top_p=top_p, max_tokens=max_tokens
            )
            made["params"].append(self)

    class LLM:
        def __init__(self, *, model: str, dtype: str, max_model_len: int, **named: Any) -> None:
            assert set(named) == {"gpu_memory_utilization", "enable_prefix_caching"}
            made.update(model=model, dtype=dtype, max_model_len=max_model_len)
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
            self.learner = Learner(loaded, AutoTokenizer.from_pretrained(model), budget=512)

        def generate(self, prompts: list[Any], params: list[SamplingParams], *, use_tqdm: bool) -> list[Any]:
            assert not use_tqdm
            return [self._one(tuple(p["prompt_token_ids"]), q) for p, q in zip(prompts, params, strict=True)]

        def _one(self, prompt: tuple[int, ...], params: Any) -> Any:
            written = Decoding(params.max_tokens, tuple(params.stop or ()), params.temperature)
            seeds = None if params.seed is None else [params.seed]
            [answer] = self.learner.write([prompt], written, seeds=seeds, margins=True)
            steps = [  # a token that is neither of the two likeliest comes along with its own rank
                {
                    7: SimpleNamespace(logprob=-1.0, rank=1),
                    8: SimpleNamespace(logprob=-1.0 - margin, rank=2),
                    9: SimpleNamespace(logprob=-9.0, rank=5),
                }
                for margin in answer.margins
            ]
            output = SimpleNamespace(text=answer.text, token_ids=answer.tokens, logprobs=steps)
            return SimpleNamespace(outputs=[output])

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return made


@pytest.fixture
def learner(tiny_llama: Path) -> Learner:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    return Learner(model, AutoTokenizer.from_pretrained(tiny_llama), budget=512)


def test_the_answers_are_those_of_the_engine(vllm: Made, learner: Learner) -> None:
    prompts = [(5, 6, 7), (8, 9, 10, 11)]
    done: list[int] = []
    found = learner.write_by_vllm(prompts, Decoding(6, stop=("a",)), margins=True, advance=done.append)
    wanted = learner.write(prompts, Decoding(6, stop=("a",)), margins=True)
    assert [(a.text, a.tokens) for a in found] == [(a.text, a.tokens) for a in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.margins == pytest.approx(other.margins, abs=1e-4)
    assert done == [2]
    assert (vllm["dtype"], vllm["max_model_len"]) == ("float32", 10)
    assert not Path(vllm["model"]).exists()  # what was written for vLLM is gone
    greedy = vllm["params"][0]
    assert greedy.stop_token_ids == sorted(learner.ends)
    assert (greedy.seed, greedy.top_k, greedy.stop, greedy.logprobs) == (None, -1, ["a"], 2)


def test_adapters_are_merged_into_what_vllm_loads_and_stay_in_the_learner(
    vllm: Made, learner: Learner
) -> None:
    from peft import LoraConfig, get_peft_model

    prompts = [(5, 6, 7)]
    learner.model = get_peft_model(
        learner.model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    learner.model.eval()
    before = {name: p.clone() for name, p in learner.model.named_parameters()}
    found = learner.write_by_vllm(prompts, Decoding(6))
    assert [a.tokens for a in found] == [a.tokens for a in learner.write(prompts, Decoding(6))]
    assert all(torch.equal(p, before[name]) for name, p in learner.model.named_parameters())


def test_vllm_is_not_asked_for_a_merged_model_that_answers_otherwise(
    vllm: Made, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model

    learner.model = get_peft_model(
        learner.model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    learner.model.eval()
    monkeypatch.setattr("forgetmenot.engine.writing.merged", lambda model: model.unload())
    with pytest.raises(UserError, match="The merged model is another one than was trained"):
        learner.write_by_vllm([(5, 6, 7)], Decoding(6))
    assert "model" not in vllm


def test_draws_carry_their_seeds(vllm: Made, learner: Learner) -> None:
    learner.write_by_vllm([(5, 6), (7, 8)], Decoding(3, temperature=0.7, top_k=5, top_p=0.9), seeds=[3, 4])
    assert [(p.seed, p.temperature, p.top_k, p.top_p) for p in vllm["params"]] == [
        (3, 0.7, 5, 0.9),
        (4, 0.7, 5, 0.9),
    ]
    assert learner.write_by_vllm([], Decoding(3)) == []


def test_without_a_gpu_or_without_vllm_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ask: Callable[[], Any] = lambda: write_by_vllm(  # noqa: E731
        tmp_path, None, frozenset(), [(1,)], Decoding(1), dtype=torch.float32
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="backend: vllm needs a GPU"):
        ask()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'forgetmenot\[vllm\]'"):
        check_vllm()
