"""The page of a large cluster: all of it is within reach, and no name, however long or odd, breaks it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.adapters.dashboard.test_page import busy, crowded, shown
from tests.adapters.dashboard.world import FakeDashboard, crowded_sections, full_sections
from tests.browser import Browser, Tab

LISTS = {"transfers": (40, "li", 10), "images": (200, "tbody", 12), "peers": (256, "tr", 12)}
HEIGHT = "document.documentElement.scrollHeight"
WIDTH = "document.documentElement.scrollWidth"


def rows(name: str, tag: str) -> str:
    return f"document.querySelectorAll('#{name} > {tag}').length"


async def test_long_lists_show_their_beginning_and_the_rest_when_asked(browser: Browser) -> None:
    agent = FakeDashboard(full_sections())
    async with shown(browser, agent) as (_, tab):
        assert await tab.js(HEIGHT) < 5500
        for name, (count, tag, few) in LISTS.items():
            button = f"document.getElementById('{name}-more')"
            assert await tab.js(rows(name, tag)) == few
            assert await tab.js(f"{button}.innerText") == f"Show all {count}"
            await tab.js(f"{button}.focus()")
            await tab.press("Enter")
            assert await tab.js(rows(name, tag)) == count
            assert await tab.js(f"{button}.innerText") == f"Show the first {few}"
        # News come: what was opened stays so, and so does the focus.
        agent.sections["peers"]["peers"][0]["endpoint"] = "10.77.0.1:5051"
        await tab.until("document.getElementById('peers').innerText.includes('10.77.0.1')")
        assert await tab.js(rows("peers", "tr")) == 256
        assert await tab.js("document.activeElement.id") == "peers-more"
        await tab.press("Enter")
        assert await tab.js(rows("peers", "tr")) == 12
        assert await tab.js(
            "(box => box.top >= 0 && box.bottom <= innerHeight)(document.activeElement.getBoundingClientRect())"
        )


async def test_short_lists_have_no_such_button(browser: Browser) -> None:
    agent = busy()
    async with shown(browser, agent) as (_, tab):
        for name in LISTS:
            assert not await tab.js(f"document.getElementById('{name}-more').checkVisibility()")
        agent.sections["images"] = full_sections()["images"]
        await tab.until("document.getElementById('images-more').checkVisibility()")
        agent.sections["images"]["images"] = agent.sections["images"]["images"][:12]
        await tab.until("!document.getElementById('images-more').checkVisibility()")


async def test_peers_that_are_not_well_are_counted_though_they_come_last(browser: Browser) -> None:
    sections = full_sections()
    for at, row in enumerate(sections["peers"]["peers"]):
        row["state"] = "ok" if at < 250 else "banned" if at < 254 else "backing off"
    async with shown(browser, FakeDashboard(sections)) as (_, tab):
        assert (
            await tab.js("document.getElementById('peers-count').innerText")
            == "the 256 fastest of 300, 2 backing off, 4 banned"
        )


WATCHED = """
window.rounds = 0;
window.asked = 0;
const [every, get] = [setInterval, fetch];
const counted = (work) => () => { work(); window.rounds += 1; };
window.setInterval = (work, time) => (time === 10000 ? every(counted(work), 20) : every(work, time));
window.fetch = (url, ...more) => { window.asked += String(url).includes("api/v1/layers"); return get(url, ...more); };
"""


async def test_what_is_not_shown_any_more_is_not_asked_for(browser: Browser) -> None:
    """An open image that leaves the store, or the part of the list that is shown."""
    agent = busy()
    agent.past = []
    async with shown(browser, agent, first=WATCHED) as (_, tab):
        await tab.js("document.querySelector('.unfold').click()")
        await tab.until("window.asked >= 3")
        agent.sections["images"] = {"count": 0, "images": []}
        await tab.until("document.getElementById('images-empty').checkVisibility()")
        asked, rounds = await tab.js("[window.asked, window.rounds]")
        await tab.until(f"window.rounds > {rounds + 3}")
        assert await tab.js("window.asked") == asked


def hostile() -> dict[str, Any]:
    """Names without a place to break at, that are markup, and that turn the direction of writing."""
    sections = crowded_sections()
    odd = "<img src=x>\u202e" + "w" * 300
    sections["status"] |= {"name": odd, "zone": odd, "version": odd, "warnings": [odd], "ready": False}
    sections["status"] |= {"reasons": [odd]}
    for row in sections["transfers"]["transfers"]:
        row["repository"] += odd
    for row in sections["images"]["images"]:
        row |= {"reference": row["reference"] + odd, "platforms": [odd]}
    sections["images"]["images"][0]["reference"] = f"registry.example/{'w' * 200}:{'t' * 128}"
    for row in sections["peers"]["peers"]:
        row["endpoint"] += odd
    for row in sections["savings"]["registries"]:
        row["registry"] += odd
    return sections


async def sideways(tab: Tab) -> list[str]:
    """What reaches out of the window, other than inside a part that scrolls by itself."""
    found: list[str] = await tab.js(
        "[...document.querySelectorAll('body *')].filter(each => each.checkVisibility() && "
        "!each.closest('.unseen, thead, svg') && !(innerWidth > 640 && each.closest('.scroll')) && "
        "each.getBoundingClientRect().right > innerWidth + 0.5).map(each => each.outerHTML.slice(0, 90))"
    )
    return found


async def test_words_are_not_broken_where_a_line_may_end_between_them(browser: Browser) -> None:
    lines = (
        "[...document.querySelectorAll('#images > tbody > tr:first-child > td:nth-child(4)')].map(each => "
        "(range => (range.selectNodeContents(each), new Set([...range.getClientRects()].map(box => box.top)).size))"
        "(document.createRange()))"
    )
    sections = full_sections()
    for row in sections["images"]["images"]:
        row |= {"complete": True, "pinned": False}
    async with shown(browser, FakeDashboard(sections)) as (_, tab):
        for width in (360, 768, 1440):
            await tab.resize(width, 900)
            assert set(await tab.js(lines)) == {1}, width


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_name_breaks_the_page(browser: Browser, scheme: str) -> None:
    agent = crowded()
    agent.sections = hostile()
    agent.layer_rows[0]["platform"] = "p" * 300
    async with shown(browser, agent) as (_, tab):
        await tab.prefer(prefers_color_scheme=scheme)
        await tab.js("document.querySelector('.unfold').click()")
        await tab.until("document.querySelectorAll('.layers tbody tr').length === 8")
        for width in (360, 768, 1440):
            await tab.resize(width, 900)
            assert await tab.js(WIDTH) == width
            assert await sideways(tab) == []


async def test_a_name_that_turns_the_direction_of_writing_turns_its_own_only(browser: Browser) -> None:
    agent = busy()
    agent.sections["status"]["name"] = "host\u202e"
    agent.sections["images"]["images"][0]["reference"] += "\u202e"
    apart = "getComputedStyle({}).unicodeBidi"
    async with shown(browser, agent) as (_, tab):
        for place in ("document.getElementById('name')", "document.querySelector('#images .name')"):
            assert await tab.js(apart.format(place)) == "isolate"


async def test_zoom_and_larger_letters(browser: Browser) -> None:
    async with shown(browser, FakeDashboard(full_sections())) as (_, tab):
        await tab.resize(640, 450, 2)  # a window of 1280 at 200 %
        assert await tab.js(WIDTH) == 640
        assert await sideways(tab) == []
        size = "parseFloat(getComputedStyle(document.querySelector({})).fontSize)"
        for place in ("body", ".empty", "#images .name", ".chart text"):
            expression = size.format(json.dumps(place))
            await tab.js("document.documentElement.style.fontSize = '16px'")
            before = await tab.js(expression)
            await tab.js("document.documentElement.style.fontSize = '32px'")
            assert await tab.js(expression) == 2 * before, place
        assert await sideways(tab) == []


async def test_what_is_pressed_is_large_enough_for_a_finger(browser: Browser) -> None:
    """WCAG 2.2, 2.5.8: 24 by 24 CSS pixels, or as far from the next as if it were."""
    small = (
        "[...document.querySelectorAll('a:not(.skip), button, summary, .spans label')]"
        ".filter(each => each.checkVisibility()).map(each => [each, each.getBoundingClientRect()])"
        ".filter(([, box]) => box.height < 24 || box.width < 24).map(([each]) => each.outerHTML.slice(0, 90))"
    )
    async with shown(browser, FakeDashboard(full_sections())) as (_, tab):
        for width in (360, 1440):
            await tab.resize(width, 900)
            assert await tab.js(small) == []
