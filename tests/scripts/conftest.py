"""Fixtures of the tests of scripts."""

from tests.studies.conftest import started

__all__ = ["started"]
