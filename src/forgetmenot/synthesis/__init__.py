"""Text from a model that is asked for it: here, another model behind an endpoint."""

from forgetmenot.synthesis.endpoint import Endpoint, EndpointSettings

__all__ = ["Endpoint", "EndpointSettings"]
