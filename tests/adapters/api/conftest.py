from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.adapters.api.registry_edge import Edge, running_edge

ON_BOTH_LOOPS = frozenset({"test_registry_bodies.py", "test_server.py"})


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What touches transports is tested on uvloop, as in production, and on the standard loop."""
    standard = {"asyncio": asyncio.new_event_loop}
    return standard | {"uvloop": uvloop.new_event_loop} if item.path.name in ON_BOTH_LOOPS else standard


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as running:
        yield running
