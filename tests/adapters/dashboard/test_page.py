"""The dashboard in a real browser: what it shows, live, to whom, and that it says no more than the agent did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.adapters.dashboard.world import (
    DIGESTS,
    IMAGE,
    NOW,
    FakeDashboard,
    World,
    busy_sections,
    crowded_sections,
    quick,
    running,
    totals,
)
from tests.browser import Browser, Tab, open_tab

LIVE = "document.getElementById('link').textContent === 'Live'"
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&amp;\'"${1}'


def by_row(rows: str, key: str = "th") -> str:
    """An expression: the exact values in each of some rows, by the row's name."""
    return (
        f"Object.fromEntries([...document.querySelectorAll({rows!r})].map(row => "
        f"[row.querySelector({key!r}).innerText.trim(), [...row.querySelectorAll('data')].map(each => each.value)]))"
    )


def busy() -> FakeDashboard:
    agent = FakeDashboard(busy_sections())
    agent.layer_rows = [
        {"digest": DIGESTS[3], "size": 74_000_000, "held": True, "hosts": 3, "platform": "linux/amd64"},
        {"digest": DIGESTS[4], "size": 5_000_000, "held": False, "hosts": 1, "platform": "linux/amd64"},
        {"digest": DIGESTS[5], "size": 40, "held": True, "hosts": None, "platform": ""},
    ]
    agent.sample(NOW - 10, 0, 0, 0)
    agent.sample(NOW - 5, 40_000_000, 30_000_000, 10_000_000)
    agent.sample(NOW, 40_000_000, 50_000_000, 10_000_000)
    return agent


def crowded() -> FakeDashboard:
    """Much of everything, with long names; the first image has eight layers."""
    agent = busy()
    agent.sections = crowded_sections()
    agent.layer_rows = [
        {
            "digest": digest,
            "size": 10 ** (3 + at),
            "held": at % 2 == 0,
            "hosts": 9 * at,
            "platform": "linux/arm64/v8",
        }
        for at, digest in enumerate(DIGESTS)
    ]
    agent.past = [
        {"digest": DIGESTS[at], "resolved_at": NOW - 1e5 * at, "first_seen": NOW - 9e5} for at in (1, 2)
    ]
    return agent


@asynccontextmanager
async def shown(
    browser: Browser, agent: FakeDashboard, *, live: bool = True, first: str = "", **settings: Any
) -> AsyncIterator[tuple[World, Tab]]:
    """The page of an agent, loaded; at the end the browser must have had nothing to complain about."""
    async with running(agent, quick(**settings)) as world, open_tab(browser) as tab:
        await tab.send("Page.addScriptToEvaluateOnNewDocument", source=first)
        await tab.goto(f"{world.url}/")
        if live:
            await tab.until(LIVE)
        yield world, tab
        assert tab.problems == []


async def test_every_figure_is_the_agents(browser: Browser) -> None:
    async with shown(browser, busy()) as (world, tab):
        told = await world.json("/api/v1/overview")
        assert await tab.js("document.title") == "host-1 · p2pdist"
        assert await tab.js("document.getElementById('ready').textContent") == "Ready"
        assert "rack-1" in await tab.js("document.getElementById('about').textContent")
        ratio = await tab.js("document.getElementById('ratio').value")
        assert float(ratio) == 0.9
        assert await tab.js("document.getElementById('ratio').textContent") == "90.0 %"
        sources = await tab.js(by_row("#sources > div", "dt"))
        assert [value for (value,) in sources.values()] == ["40000000", "50000000", "10000000"]
        tiles = {name: int(value) for name, (value,) in (await tab.js(by_row("#tiles > div", "dt"))).items()}
        status = told["status"]
        assert tiles == {
            "Peers": status["peers"], "In flight": status["transfers"],
            "Received": sum(status["received_bytes"].values()), "Sent to peers": status["sent_bytes"]["peer"],
            "Store": status["store"]["committed"],
        }  # fmt: skip
        assert await tab.js(by_row("#registries tr")) == {
            "docker.io": ["40000000", "30000000", "10000000", "70000000"],
            "ghcr.io": ["0", "20000000", "0", "20000000"],
        }
        assert (
            await tab.js("document.getElementById('registries-count').innerText") == "1 more without traffic"
        )
        (transfer,) = await tab.js(
            "[...document.querySelectorAll('#transfers li')].map(each => each.innerText)"
        )
        assert "registry.example.com/shop/web" in transfer
        assert "51.6 %" in transfer
        assert "34.6 MB of 67.1 MB" in transfer
        assert "from peers 24.1 MB, upstream 10.5 MB" in transfer
        assert "2 runtimes wait" in transfer
        label = "document.querySelector('#transfers .pieces').getAttribute('aria-label')"
        assert await tab.js(label) == "32 of 64 pieces here, 2 arriving"
        assert await tab.js(by_row("#peers tr")) == {
            "10.0.0.2:5051": ["48000000", "0.0012", "1.5"],
            "10.0.0.3:5051": ["", "", "61"],
        }
        standings = await tab.js(
            "[...document.querySelectorAll('#peers .standing')].map(each => each.textContent)"
        )
        assert standings == ["OK", "Banned"]
        assert await tab.js(by_row("#images > tbody")) == {
            IMAGE: ["137000000", "137000000"],
            "docker.io/library/redis:7": ["30000000", "40000000"],
        }
        rows = await tab.js("[...document.querySelectorAll('#images > tbody')].map(each => each.innerText)")
        assert "Complete, pinned" in rows[0]
        assert "linux/amd64, linux/arm64" in rows[0]
        assert "1 min 30 s ago" in rows[0]
        assert "Partial" in rows[1]
        warnings = await tab.js("document.getElementById('warning-list').innerText")
        assert warnings == status["warnings"][0]


async def test_a_fresh_agent_says_what_to_do(browser: Browser) -> None:
    async with shown(browser, FakeDashboard()) as (_, tab):
        text = await tab.js("document.body.innerText")
        for words in (
            "Nothing was pulled through this agent yet", "127.0.0.1:5050", "Nothing is being fetched.",
            "holds no image yet", "No other agent has answered yet", "No registry has been pulled from yet",
        ):  # fmt: skip
            assert words in text
        assert await tab.js("document.getElementById('ratio').value") == ""
        assert "%" not in await tab.js("document.querySelector('.headline').innerText")
        hidden = "[...document.querySelectorAll('table')].filter(each => each.checkVisibility()).length"
        assert await tab.js(hidden) == 0
        assert await tab.js("document.getElementById('warnings').checkVisibility()") is False


async def test_without_a_cluster_and_not_ready(browser: Browser) -> None:
    agent = FakeDashboard()
    agent.sections["status"] |= {"cluster": False, "ready": False, "reasons": ["draining"]}
    async with shown(browser, agent) as (_, tab):
        assert await tab.js("document.getElementById('ready').textContent") == "Not ready: draining"
        assert "draining" in await tab.js("document.getElementById('warning-list').innerText")
        assert "Single-host mode" in await tab.js("document.getElementById('peers-empty').innerText")


async def test_it_follows_the_agent_without_being_loaded_again(browser: Browser) -> None:
    agent = busy()
    async with shown(browser, agent) as (world, tab):
        await tab.js("window.mark = 'still here'")
        upstream = "document.querySelector('#chart path.upstream').getAttribute('d')"
        before = await tab.js(upstream)
        agent.sample(NOW + 5, 40_000_000, 50_000_000, 110_000_000)
        agent.sections["status"] |= totals(40_000_000, 50_000_000, 110_000_000)
        agent.sections["transfers"] = {"count": 0, "transfers": []}
        agent.sections["peers"]["peers"].pop()
        agent.sections["images"]["images"].reverse()
        await tab.until("document.getElementById('ratio').textContent === '45.0 %'")
        await tab.until("document.getElementById('transfers-empty').checkVisibility()")
        await tab.until("document.querySelectorAll('#peers tr').length === 1")
        await tab.until("document.querySelector('#images .name').textContent === 'docker.io/library/redis:7'")
        await tab.until(upstream, lambda now: now != before)
        agent.sections["transfers"] = busy_sections()["transfers"]
        agent.sections["transfers"]["transfers"][0]["pieces"]["cells"] = "#" * 63 + "1"
        label = "document.querySelector('#transfers .pieces')?.getAttribute('aria-label')"
        await tab.until(f"{label} === '63 of 64 pieces here, 1 arriving'")
        assert await tab.js("window.mark") == "still here"
        assert world.dashboard.live.subscribers == 1


async def test_the_chart_shows_what_was_moved_when(browser: Browser) -> None:
    async with shown(browser, busy()) as (_, tab):
        await tab.js("document.querySelector('#chart-details summary').click()")
        await tab.until("document.querySelectorAll('#chart-rows tr').length")
        rows = (await tab.js(by_row("#chart-rows tr"))).values()
        sums = [sum(int(row[at]) for row in rows) for at in range(3)]
        assert sums == [40_000_000, 50_000_000, 10_000_000]
        assert (
            await tab.js("document.getElementById('chart-says').textContent")
            == "Highest 16.0 MB/s in this span."
        )
        box = await tab.js(
            "(box => [box.left, box.top, box.width])(document.getElementById('chart').getBoundingClientRect())"
        )
        await tab.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] - 12, y=box[1] + 60)
        await tab.until(
            "document.getElementById('chart-says').textContent.endsWith('store 0 B/s, peers 4.0 MB/s, upstream 0 B/s')"
        )


@pytest.mark.parametrize("past", [None, [{"digest": DIGESTS[6], "resolved_at": NOW - 9e4}]])
async def test_an_images_layers_and_what_its_tag_named(browser: Browser, past: list[Any] | None) -> None:
    agent = busy()
    agent.past = past
    async with shown(browser, agent) as (_, tab):
        await tab.js("document.querySelector('.unfold').click()")
        await tab.until("document.querySelectorAll('.layers tbody tr').length === 3")
        rows = await tab.js("[...document.querySelectorAll('.layers tbody tr')].map(each => each.innerText)")
        assert "74.0 MB" in rows[0]
        assert [[cell.strip() for cell in row.split("\t")[-2:]] for row in rows] == [
            ["Held", "3 of 3"], ["Not held", "1 of 3"], ["Held", "not known now"],
        ]  # fmt: skip
        titles = await tab.js("[...document.querySelectorAll('.layers code')].map(each => each.title)")
        assert titles == DIGESTS[3:6]
        full = "[...document.querySelectorAll('.layers tbody tr')].map(each => each.querySelectorAll('.dot.full').length)"
        assert await tab.js(full) == [3, 1, 0]
        history = "document.querySelector('.history').checkVisibility()"
        if past is None:
            assert await tab.js(history) is False
            (problem,) = tab.problems
            assert "404" in problem
            tab.problems.clear()
        else:
            await tab.until(history)
            assert DIGESTS[6][:19] in await tab.js("document.querySelector('.history').innerText")


async def test_names_from_strangers_are_text(browser: Browser) -> None:
    agent = busy()
    agent.past = [{"digest": HOSTILE, "resolved_at": NOW}]
    agent.sections["status"] |= {"name": HOSTILE, "zone": HOSTILE, "warnings": [HOSTILE], "version": HOSTILE}
    agent.sections["savings"]["registries"][0]["registry"] = HOSTILE
    agent.sections["transfers"]["transfers"][0] |= {"repository": HOSTILE, "digest": HOSTILE}
    agent.sections["peers"]["peers"][0] |= {"endpoint": HOSTILE, "peer": HOSTILE, "state": HOSTILE}
    agent.sections["images"]["images"][0] |= {"reference": "a.example/b:1" + HOSTILE, "platforms": [HOSTILE]}
    agent.sections["images"]["images"][1] |= {"reference": "docker.io/library/redis:7"}
    agent.layer_rows[0] |= {"digest": HOSTILE, "platform": HOSTILE}
    async with shown(browser, agent) as (_, tab):
        await tab.js("document.querySelectorAll('.unfold')[1].click()")
        await tab.until("document.querySelectorAll('.layers tbody tr').length === 3")
        text = await tab.js("document.body.innerText")
        assert text.count(HOSTILE) >= 8
        assert await tab.js(
            "[document.querySelectorAll('img').length, document.querySelectorAll('script').length]"
        ) == [1, 1]
        assert await tab.js("window.hacked") is None


async def test_the_keyboard_reaches_and_works_everything(browser: Browser) -> None:
    agent = busy()
    agent.past = []
    focus = "(each => each.id || each.className || each.textContent)(document.activeElement)"
    async with shown(browser, agent) as (_, tab):
        await tab.press("Tab")
        assert await tab.js(focus) == "skip"
        assert await tab.js("document.activeElement.getBoundingClientRect().top >= 0")
        await tab.press("Enter")
        await tab.until("document.activeElement.id === 'main'")
        await tab.press("Tab")
        assert await tab.js("document.activeElement.value") == "300"
        await tab.press("ArrowRight")
        assert await tab.js("document.querySelector('input[name=span]:checked').value") == "900"
        reached = []
        while not reached or reached[-1] != "unfold":
            await tab.press("Tab")
            reached.append(await tab.js(focus))
            assert len(reached) < 30
            assert await tab.js("getComputedStyle(document.activeElement).outlineStyle") == "solid", reached[
                -1
            ]
        assert reached[0] == "Show as a table"
        await tab.press("Enter")
        expanded = "document.activeElement.getAttribute('aria-expanded')"
        assert await tab.js(expanded) == "true"
        controlled = "document.getElementById(document.activeElement.getAttribute('aria-controls'))"
        assert await tab.js(f"{controlled}.checkVisibility()")
        await tab.until("document.querySelectorAll('.layers tbody tr').length === 3")
        # News do not take the focus away, nor close what is open.
        agent.sections["images"]["images"][0]["held"] = 99_000_000
        agent.sections["images"]["images"].reverse()
        await tab.until(
            "[...document.querySelectorAll('#images data')].some(each => each.value === '99000000')"
        )
        assert await tab.js(expanded) == "true"
        await tab.press(" ")
        assert await tab.js(expanded) == "false"


async def test_light_and_dark_and_without_motion(browser: Browser) -> None:
    light = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((sum, each) => sum + Number(each), 0)"
    async with shown(browser, busy()) as (_, tab):
        await tab.prefer(prefers_color_scheme="light")
        assert await tab.js(light) > 600
        await tab.prefer(prefers_color_scheme="dark")
        assert await tab.js(light) < 120
        moves = "getComputedStyle(document.querySelector('.arrow')).transitionDuration"
        assert await tab.js(moves) != "0s"
        await tab.prefer(prefers_reduced_motion="reduce")
        assert await tab.js(moves) == "0s"


@pytest.mark.parametrize("fill", [busy, crowded])
async def test_a_narrow_window_needs_no_sideways_scrolling(
    browser: Browser, fill: Callable[[], FakeDashboard]
) -> None:
    cut = (
        "[...document.querySelectorAll('main *')].filter(each => each.checkVisibility() && !each.closest('thead, .unseen')"
        " && each.getBoundingClientRect().right > innerWidth).map(each => each.outerHTML.slice(0, 80))"
    )
    async with shown(browser, fill()) as (_, tab):
        for width in (360, 400, 700, 1600):
            await tab.resize(width, 800)
            assert await tab.js("document.documentElement.scrollWidth") <= width
            if width < 640:  # the tables are lists there
                assert await tab.js(cut) == []


async def test_a_table_is_a_table_as_well_where_it_is_drawn_as_a_list(browser: Browser) -> None:
    parts = (
        "[...document.querySelectorAll('#peers tr:first-child > *')]"
        ".map(each => [each.getAttribute('role'), getComputedStyle(each, '::before').content])"
    )
    titles = ["Id", "State", "Gave at", "Round trip", "Last heard"]
    async with shown(browser, crowded()) as (_, tab):
        assert [role for role, _ in await tab.js(parts)] == ["rowheader", *["cell"] * 5]
        assert {told for _, told in await tab.js(parts)} == {"none"}
        await tab.resize(400, 800)
        # What stands behind the slash is what a screen reader tells of it: nothing, for it tells the column already.
        assert [told for _, told in await tab.js(parts)][1:] == [f'"{title}" / ""' for title in titles]
        tree = (await tab.send("Accessibility.getFullAXTree"))["nodes"]
        roles = [node["role"]["value"] for node in tree if not node["ignored"]]
        assert (roles.count("table"), roles.count("columnheader")) == (3, 17)
        assert roles.count("rowheader") == 12 + 7 + 10


async def test_samples_that_come_twice_late_or_after_a_restart(browser: Browser) -> None:
    """The chart's own book-keeping, as a module."""
    script = """
    import('./dashboard/chart.js').then(({History}) => {
      const fields = ['number', 'time', 'store', 'peer', 'upstream'];
      const history = new History(), told = [];
      const merge = (run, ...samples) => history.merge({run, capacity: 4, fields, samples});
      const numbers = () => told.push(history.samples.map(sample => sample.number));
      merge('a', [0, 100, 0, 0, 0], [1, 105, 50, 0, 0]); numbers();
      merge('a', [1, 105, 50, 0, 0], [2, 117.5, 50, 25, 0]); numbers();
      told.push(history.buckets(30, 10).map(each => [each.start, each.store, each.peer]));
      merge('a', [3, 120, 50, 25, 0], [4, 125, 50, 25, 0]); numbers();
      merge('b', [0, 130, 0, 0, 0]); numbers();
      return told;
    })"""
    async with shown(browser, busy()) as (_, tab):
        first, second, buckets, third, fourth = await tab.js(script)
        assert (first, second, third, fourth) == ([0, 1], [0, 1, 2], [1, 2, 3, 4], [0])
        assert buckets == [[90, 0, 0], [100, 50, 10], [110, 0, 15]]
