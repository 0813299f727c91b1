"""Text from a model that is asked for it: here, rationales for answers that are known."""

from forgetmenot.synthesis.rationales import LocalTeacher, Teacher, Written, write_rationales

__all__ = ["LocalTeacher", "Teacher", "Written", "write_rationales"]
