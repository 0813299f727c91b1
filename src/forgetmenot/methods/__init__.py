"""Continual-learning methods: the protocol, and one file for each method.

No file here imports torch before a hook is called: a method's name, options and needs are there at once.
"""

from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from forgetmenot.errors import UserError, nearest, validation_sentence
from forgetmenot.methods.adapter_per_task import AdapterPerTask
from forgetmenot.methods.agem import AGEM
from forgetmenot.methods.asft import ASFT
from forgetmenot.methods.calm import Calm
from forgetmenot.methods.corda import CorDA
from forgetmenot.methods.dare import DARE
from forgetmenot.methods.derpp import DarkExperienceReplay
from forgetmenot.methods.dft import DFT
from forgetmenot.methods.eaft import EAFT
from forgetmenot.methods.ema import EMA
from forgetmenot.methods.ewc import EWC
from forgetmenot.methods.flow import Flow
from forgetmenot.methods.freeze import Freeze
from forgetmenot.methods.gem import GEM
from forgetmenot.methods.gpm import GPM
from forgetmenot.methods.inflora import InfLora
from forgetmenot.methods.joint import Joint
from forgetmenot.methods.kl import KL
from forgetmenot.methods.l2_sp import L2SP
from forgetmenot.methods.lamol import LAMOL
from forgetmenot.methods.lora_null import LoraNull
from forgetmenot.methods.lwf import LwF
from forgetmenot.methods.magmax import MagMax
from forgetmenot.methods.moe_lora import MoELoRA
from forgetmenot.methods.o_lora import OLoRA
from forgetmenot.methods.ogd import OGD
from forgetmenot.methods.on_policy_replay import OnPolicyReplay
from forgetmenot.methods.osf import OSF
from forgetmenot.methods.progressive_prompts import ProgressivePrompts
from forgetmenot.methods.replay import Replay
from forgetmenot.methods.self_distillation import SelfDistillation
from forgetmenot.methods.self_guide_replay import SelfGuideReplay
from forgetmenot.methods.sequential import Sequential
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.methods.si import SI
from forgetmenot.methods.single import Single
from forgetmenot.methods.slao import SLAO
from forgetmenot.methods.ssr import SSR
from forgetmenot.methods.stm import STM
from forgetmenot.methods.task_arithmetic import TaskArithmetic
from forgetmenot.methods.ties import TIES
from forgetmenot.methods.weight_averaging import WeightAveraging

METHODS: dict[str, type[Method]] = {
    "sequential": Sequential,
    "joint": Joint,
    "single": Single,
    "adapter-per-task": AdapterPerTask,
    "agem": AGEM,
    "asft": ASFT,
    "calm": Calm,
    "corda": CorDA,
    "dare": DARE,
    "der++": DarkExperienceReplay,
    "dft": DFT,
    "eaft": EAFT,
    "ema": EMA,
    "ewc": EWC,
    "flow": Flow,
    "freeze": Freeze,
    "gem": GEM,
    "gpm": GPM,
    "inflora": InfLora,
    "kl": KL,
    "l2-sp": L2SP,
    "lamol": LAMOL,
    "lora-null": LoraNull,
    "lwf": LwF,
    "magmax": MagMax,
    "moe-lora": MoELoRA,
    "o-lora": OLoRA,
    "ogd": OGD,
    "on-policy-replay": OnPolicyReplay,
    "osf": OSF,
    "progressive-prompts": ProgressivePrompts,
    "replay": Replay,
    "self-distillation": SelfDistillation,
    "self-guide-replay": SelfGuideReplay,
    "si": SI,
    "slao": SLAO,
    "ssr": SSR,
    "stm": STM,
    "task-arithmetic": TaskArithmetic,
    "ties": TIES,
    "weight-averaging": WeightAveraging,
}
ENTRY_POINTS = "forgetmenot.methods"

__all__ = [
    "ENTRY_POINTS",
    "METHODS",
    "Joint",
    "Method",
    "Options",
    "Sequential",
    "Single",
    "Stage",
    "find_method",
    "known_methods",
    "make_method",
]


def known_methods() -> dict[str, type[Method]]:
    """The methods of this package and those that others give through entry points, by name."""
    others = {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
    return {**others, **METHODS}


def find_method(name: str) -> type[Method] | None:
    """One of the known methods; of the other packages only the one that gives it is imported."""
    if name in METHODS:
        return METHODS[name]
    points = (point for point in entry_points(group=ENTRY_POINTS) if point.name == name)
    return next((point.load() for point in points), None)


def make_method(name: str, options: dict[str, Any], seed: int) -> Method:
    """A method by name, with its options checked.

    Raises:
        UserError: If there is no such method or option, naming the nearest.
    """
    kind = find_method(name)
    if kind is None:
        raise UserError(f"method.name: there is no method {name!r}. {nearest(name, known_methods())}")
    try:
        checked = kind.Options(**options)
    except ValidationError as error:
        raise UserError(validation_sentence(error, kind.Options, "method")) from error
    return kind(checked, seed)
