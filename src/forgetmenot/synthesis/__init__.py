"""Text from a model that is asked for it: rationales for answers that are known, a model at an endpoint."""

from forgetmenot.synthesis.endpoint import Endpoint, EndpointSettings
from forgetmenot.synthesis.rationales import LocalTeacher, Teacher, Written, write_rationales

__all__ = ["Endpoint", "EndpointSettings", "LocalTeacher", "Teacher", "Written", "write_rationales"]
