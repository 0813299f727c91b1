"""Text from a model that is asked for it: another model behind an endpoint, and a teacher's rationales."""

from forgetmenot.synthesis.endpoint import Endpoint, EndpointSettings
from forgetmenot.synthesis.rationales import LocalTeacher, Teacher, Written, write_rationales

__all__ = ["Endpoint", "EndpointSettings", "LocalTeacher", "Teacher", "Written", "write_rationales"]
