"""The probe `instruction-following`: a judge compares answers to ordinary requests with the base model's."""

from forgetmenot.probes.shared.judged import Judged


class InstructionFollowing(Judged):
    """Instruction following: answers to prompts of Self-Instruct and LIMA, compared with the base model's."""

    delta = "instruction following"
    criterion = (
        "The better answer follows the request's instructions more closely and is more helpful, correct and "
        "relevant."
    )
    sets = ("self-instruct", "lima")
