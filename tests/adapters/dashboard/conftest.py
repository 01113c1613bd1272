from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from p2pdist.api.dashboard import live
from tests.adapters.dashboard.world import World, running
from tests.browser import Browser, program


@pytest.fixture(autouse=True)
def _no_waiting_for_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections are computed whenever somebody asks, so that no test waits for the next second."""
    monkeypatch.setattr(live, "SECTIONS", dict.fromkeys(live.SECTIONS, 0.0))
    monkeypatch.setattr(live, "_COST", 0.0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as world:
        yield world


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests; each opens a tab with storage of its own."""
    if program() is None:
        why = "no Chromium here, which these tests look at the dashboard with: run bin/.e2e-packages.sh"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()
