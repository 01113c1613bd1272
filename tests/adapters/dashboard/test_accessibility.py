"""The page by the rules of axe-core (WCAG 2.1 A and AA, and its own best practices), in each of its states."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.dashboard.test_page import busy, crowded, shown
from tests.adapters.dashboard.world import FakeDashboard
from tests.browser import Browser, Tab


@cache
def axe() -> str:
    spec = importlib.util.find_spec("axe_core_python")
    assert spec is not None
    assert spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text()


async def violations(tab: Tab) -> list[str]:
    """What axe-core finds wrong: rule and element."""
    await tab.js(f"{axe()}; undefined")
    result: dict[str, Any] = await tab.js(
        "axe.run().then(({passes, violations}) => ({passes: passes.length, violations}))"
    )
    assert result["passes"] > 20
    return [f"{each['id']}: {node['html'][:200]}" for each in result["violations"] for node in each["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_with_everything_on_it(browser: Browser, scheme: str) -> None:
    agent = busy()
    agent.past = [{"digest": "sha256:aa", "resolved_at": 1.0, "first_seen": 0.0, "held": True}]
    async with shown(browser, agent) as (_, tab):
        await tab.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        await tab.js("document.querySelector('.unfold').click()")
        await tab.js("document.querySelector('#chart-details summary').click()")
        await tab.until("document.querySelectorAll('.layers tbody tr').length === 3")
        assert await violations(tab) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_empty_and_not_ready(browser: Browser, scheme: str) -> None:
    agent = FakeDashboard()
    agent.sections["status"] |= {"ready": False, "reasons": ["starting"]}
    async with shown(browser, agent) as (_, tab):
        await tab.prefer(prefers_color_scheme=scheme)
        assert await violations(tab) == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 400), ("light", 1200)])
async def test_with_much_of_everything_in_a_narrow_window(browser: Browser, scheme: str, width: int) -> None:
    async with shown(browser, crowded()) as (_, tab):
        await tab.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        await tab.resize(width, 800)
        await tab.js("document.querySelector('.unfold').click()")
        await tab.until("document.querySelectorAll('.layers tbody tr').length === 8")
        assert await violations(tab) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_when_the_agent_has_gone(browser: Browser, scheme: str) -> None:
    async with shown(browser, busy()) as (world, tab):
        await tab.prefer(prefers_color_scheme=scheme)
        await world.listener.close()
        await tab.until("document.getElementById('link').textContent === 'No answer from the agent'")
        assert await violations(tab) == []
        tab.problems.clear()  # the browser tells of the connection that it lost


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ("document.querySelector('.mark').removeAttribute('alt')", "image-alt"),
        ("document.documentElement.style.setProperty('--quiet', '#bbb')", "color-contrast"),
        ("document.querySelector('.unfold .name').remove()", "button-name"),
        ("document.querySelector('.pieces').removeAttribute('aria-label')", "svg-img-alt"),
        ("document.querySelector('h1').remove()", "page-has-heading-one"),
    ],
)
async def test_what_is_broken_is_found(browser: Browser, damage: str, rule: str) -> None:
    async with shown(browser, busy(), interval=3600.0) as (_, tab):
        await tab.js(damage)
        assert {each.partition(":")[0] for each in await violations(tab)} == {rule}
