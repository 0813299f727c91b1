"""The parts of the benchmark for a GPU: what is measured of one model with random weights."""

import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import forgetmenot
from benchmarks.gpu_settings import GpuSettings
from benchmarks.ours import order, same_likelihoods, same_training, train, with_adapter
from benchmarks.resident import added_at_peak
from benchmarks.table import in_words
from benchmarks.timing import fastest, product_rate, timed
from benchmarks.workload import Material, Row, Sizes, Workload, read_material, read_workload
from forgetmenot.engine.attention import attention_of, choose_attention, use_attention
from forgetmenot.engine.learner import Learner, copy_weights
from forgetmenot.engine.pack import node_budget
from forgetmenot.engine.precision import Precision
from forgetmenot.errors import UserError
from forgetmenot.models.load import model_source, no_progress_bars
from forgetmenot.models.settings import ModelSettings
from forgetmenot.prompting import Encoded
from forgetmenot.record.layout import TIMING

REPEATS = 5
"""The most timed passes of a side; fewer where its share of the time is over."""
EXAMINED = 64
"""Examples of a task on which attention kernels are compared."""
PASSES = {"scoring": 1, "training": 2}
"""How often a layer's weight is multiplied at a position: forward, and with LoRA for the input's gradient."""

Found = dict[str, Any]


def product(device: torch.device) -> float:
    """The machine's own rate of matrix products in the dtype of the benchmark, operations a second."""
    return product_rate(device, torch.bfloat16 if device.type == "cuda" else torch.float32, "wall")


@dataclass
class Subject:
    """A model of given dimensions and what is measured of it.

    Each part adds what it finds to a dict as soon as it is known, and has so many seconds.

    Attributes:
        rate: Of the machine's own matrix product, operations a second.
        attention: How tries are masked, which `exactness` may change.
    """

    settings: GpuSettings
    size: str
    device: torch.device
    folder: Path
    rate: float
    attention: Any = "dense"
    learner: Learner | None = field(default=None, repr=False)

    @property
    def precision(self) -> Precision:
        """The dtype of products."""
        return "bf16" if self.device.type == "cuda" else "fp32"

    @property
    def workload(self) -> Workload:
        """What both sides do, on the bundled tasks."""
        workload = read_workload().model_copy(update={"tasks": self.settings.tasks})
        return workload.of(Row("small", 0, "all", self.precision))

    @property
    def material(self) -> list[Material]:
        """The tasks with their examples."""
        own = self.settings.sizes[self.size]
        return read_material(self.workload, 0, Sizes(score=own.score, train=own.train), None)

    def build(self, found: Found, _: float) -> None:
        """Draw the weights on the device."""
        own = self.settings.sizes[self.size]
        source = model_source(ModelSettings())[0]
        tokenizer = AutoTokenizer.from_pretrained(source)
        special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        config = AutoConfig.for_model(**own.config, **special)
        torch.manual_seed(self.workload.seed)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        with self.device:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        model.name_or_path = self.size
        parameters = model.num_parameters()
        if parameters != own.parameters:
            raise UserError(f"{self.size} has {parameters} parameters, and gpu.yaml says {own.parameters}.")
        self.attention = choose_attention("auto", self.device, model)
        use_attention(model, self.attention)
        budget = node_budget(self.device.type, self.attention, torch.get_num_threads())
        self.learner = Learner(model, tokenizer, budget, self.precision)
        found |= {"parameters": parameters, "attention": self.attention, "precision": self.precision}

    def exactness(self, found: Found, _: float) -> None:
        """Hold the kernel against the dense mask: log-likelihoods, and the lowest layer's gradient."""
        learner, allowed = self._learner, self.settings.exact
        kernel = self.attention
        if kernel == "dense":
            found |= {"kernel": kernel, "said": "dense mask"}
            return
        self.attention = "dense"  # until the kernel is known to be exact
        try:
            (truth, true_gradient), (values, gradient) = self._seen("dense"), self._seen(kernel)
        finally:
            use_attention(learner.model, "dense")
        value = float(((values - truth).abs() / truth.abs().clamp(min=1)).max())
        slope = float((gradient - true_gradient).norm() / true_gradient.norm())
        found |= {"kernel": kernel, "log_likelihood": value, "gradient": slope}
        if not (value <= allowed.log_likelihood and slope <= allowed.gradient):
            raise UserError(
                f"{kernel} attention is not exact, and the dense mask is taken: log-likelihoods differ by "
                f"{value:.1e} relative, gradients by {slope:.1e}."
            )
        self.attention = kernel
        use_attention(learner.model, kernel)
        found["said"] = f"{kernel} against dense: Δ ≤ {value:.0e}, of gradients {slope:.0e}"

    def scoring(self, found: Found, seconds: float) -> None:
        """Every candidate's log-likelihood, from texts, against lm-eval."""
        learner, material = self._learner, self.material
        longest = self.workload.training.max_length
        answers: list[list[float]] = []

        def ours() -> None:
            answers[:] = [
                values.tolist()
                for part in material
                for values in learner.score(part.encode(part.score, learner.tokenizer, longest))
            ]

        count = sum(len(part.score) for part in material)
        found["ours"] = self._cost("scoring", ours, count, seconds / 2)
        if find_spec("lm_eval") is None or find_spec("trl") is None:
            found["peer"] = {"skipped": "lm-eval or TRL is not installed"}
            return
        from benchmarks.peers import LmEval, quiet

        quiet()
        questions = [question for part in material for question in part.questions()]
        theirs: list[list[float]] = []

        def peer(flags: Mapping[str, int]) -> None:
            dtype = self.precision
            theirs[:] = LmEval(learner.model, learner.tokenizer, dtype=dtype, **flags).score(questions)

        with self._as_the_peer_has_it():
            choice = fastest(self.workload.peers.lm_eval, peer, "wall", f"{self.size}: lm-eval's batch")
            cost = self._cost("scoring", lambda: peer(choice), count, seconds / 4)
        agreed = same_likelihoods(answers, theirs, self.workload.tolerated.log_likelihood)
        found["peer"] = cost | {"flags": in_words(choice), "agreement": agreed}

    def training(self, found: Found, seconds: float) -> None:
        """One epoch with LoRA, from tokens, against TRL."""
        workload, learner = self.workload, with_adapter(self.workload, self._learner)
        longest = workload.training.max_length
        examples: list[Encoded] = [
            one for part in self.material for one in part.encode(part.train, learner.tokenizer, longest)
        ]
        start = learner.snapshot()
        first: list[float] = []

        def ours() -> None:
            copy_weights(learner.trainable(), start)
            first[:] = [train(workload, learner, examples)[0].loss]

        found["ours"] = self._cost("training", ours, len(examples), seconds / 2)
        if find_spec("trl") is None or find_spec("lm_eval") is None:
            found["peer"] = {"skipped": "lm-eval or TRL is not installed"}
            return
        from benchmarks.peers import SAME_ORDER, as_tokens, first_loss, quiet, sft_trainer

        quiet()
        end, data = learner.snapshot(), as_tokens(examples)
        ordered = data.select(order(workload, len(data), workload.seed))

        def peer(flags: Mapping[str, Any], data: Any = data) -> Any:
            copy_weights(learner.trainable(), start)
            trainer = sft_trainer(workload, learner.model, learner.tokenizer, data, flags, self.folder)
            trainer.train()
            return trainer

        with self._as_the_peer_has_it():
            choice = fastest(workload.peers.trl.choices, peer, "wall", f"{self.size}: TRL's flags")
            cost = self._cost("training", lambda: peer(choice), len(examples), seconds / 4)
            their_loss = first_loss(peer({**choice, **SAME_ORDER}, ordered))
        agreed = same_training(first[0], their_loss, start, end, learner.trainable(), workload.tolerated)
        found["peer"] = cost | {"flags": in_words(choice), "agreement": agreed}

    def whole_run(self, found: Found, _: float) -> None:
        """A run over all tasks, from weights on disk; its rates, and what the paper's sequence would take."""
        own, paper = self.settings.sizes[self.size], self.settings.paper
        learner = self._learner
        model = learner.model.unload() if isinstance(learner.model, PeftModel) else learner.model
        weights = self.folder / "model"
        with no_progress_bars():
            model.save_pretrained(weights)
        learner.tokenizer.save_pretrained(weights)
        del model
        self.forget()
        forgetmenot.run(
            {
                "model": str(weights),
                "tasks": self.settings.tasks,
                "adapter": self.workload.adapter.model_dump(exclude_defaults=True),
                "training": self.workload.training.model_dump()
                | {"limit": own.train, "attention": "dense" if self.attention == "dense" else "auto"},
                "evaluation": {"limit": own.score},
                "checkpoints": "none",
                "output": str(self.folder / "run"),
            },
            fresh=True,
        )
        times = json.loads((self.folder / "run" / TIMING).read_text())
        tasks = len(self.settings.tasks)
        trained = own.train * tasks / sum(times["train_s"])
        scored = own.score * tasks * len(times["eval_s"]) / sum(times["eval_s"])
        minutes = (paper.train / trained + paper.score / scored) / 60
        found |= {"train_rate": trained, "score_rate": scored, "paper_minutes": minutes}

    def forget(self) -> None:
        """Make room on the device."""
        self.learner = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _learner(self) -> Learner:
        if self.learner is None:
            raise UserError("the model was not built")
        return self.learner

    @contextmanager
    def _as_the_peer_has_it(self) -> Iterator[None]:
        """Let the model use its own attention kernel, without ours before it."""
        model = self._learner.model
        ours = attention_of(model)
        use_attention(model, "dense")
        try:
            yield
        finally:
            use_attention(model, ours)

    def _seen(self, attention: Any) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of one pack by a kernel, and their gradient by a layer's weight, in fp64."""
        learner = self._learner
        use_attention(learner.model, attention)
        part = self.material[0]
        some = part.encode(part.train[:EXAMINED], learner.tokenizer, self.workload.training.max_length)
        sequences = [one.answer for one in some]
        sequences = [sequences[k] for k in learner.cut(sequences)[0]]
        weight = next(m.weight for m in learner.model.modules() if isinstance(m, torch.nn.Linear))
        learner.model.requires_grad_(False)
        weight.requires_grad_(True)
        values = learner.forward(sequences)
        [gradient] = torch.autograd.grad(values.sum(), weight)
        weight.requires_grad_(False)
        return values.detach().double(), gradient.double()

    def _cost(self, work: str, once: Callable[[], object], examples: int, seconds: float) -> Found:
        """Time a side as often as it fits, after a pass that compiles; then see memory and positions."""
        learner = self._learner
        until = time.monotonic() + seconds
        once()
        taken = [timed(once, "wall")]
        while len(taken) < REPEATS and time.monotonic() + 2 * taken[-1] < until:
            taken.append(timed(once, "wall"))
        positions = 0

        def count(_: Any, given: tuple[Tensor, ...]) -> None:
            nonlocal positions
            positions += given[0].numel()

        hook = learner.model.get_input_embeddings().register_forward_pre_hook(count)
        gib = added_at_peak(once, self.device) / 1024
        hook.remove()
        layers = sum(
            module.weight.numel()
            for name, module in learner.model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and "lora_" not in name
            and module is not learner.model.get_output_embeddings()
        )
        flops = 2 * PASSES[work] * layers * positions
        return {
            "seconds": taken,
            "rate": examples / median(taken),
            "positions": positions,
            "mfu": flops / median(taken) / self.rate,
            "gib": gib,
        }
