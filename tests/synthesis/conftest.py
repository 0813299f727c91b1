"""A server to ask."""

from collections.abc import Iterator

import pytest

from tests.endpoint import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server
