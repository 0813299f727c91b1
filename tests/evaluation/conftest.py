"""The learners of the probes' tests."""

from tests.probes.conftest import broken, learner

__all__ = ["broken", "learner"]
