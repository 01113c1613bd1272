"""How the page stays up to date: events, asking again and again, after a restart, out of sight, behind a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tests.adapters.api.registry_edge import until
from tests.adapters.dashboard.test_page import LIVE, busy, shown
from tests.adapters.dashboard.world import NOW, World, quick, running, totals
from tests.browser import Browser, open_tab


async def test_where_events_do_not_arrive_it_asks_again_and_again(browser: Browser) -> None:
    agent = busy()
    told = (
        "window.told = []; document.addEventListener('DOMContentLoaded', () => new MutationObserver(() => "
        "told.push(document.getElementById('link').textContent))"
        ".observe(document.getElementById('link'), {childList: true, characterData: true, subtree: true}))"
    )
    async with shown(browser, agent, live=False, first=told, max_subscribers=0) as (_, tab):
        await tab.until("document.getElementById('link').textContent === 'Every 2 s'")
        assert await tab.js("told") == ["Every 2 s"]
        assert await tab.js("document.getElementById('ratio').textContent") == "90.0 %"
        agent.sections["status"] |= totals(0, 0, 10)
        agent.sample(NOW + 5, 1, 2, 3)
        await tab.until("document.getElementById('ratio').textContent === '0 %'")
        assert [each for each in tab.problems if "429" not in each] == []
        tab.problems.clear()


async def test_an_agent_that_goes_and_comes_back(browser: Browser) -> None:
    agent = busy()
    async with running(agent, quick(retry=0.1)) as world, open_tab(browser) as tab:
        await tab.goto(f"{world.url}/")
        await tab.until(LIVE)
        await tab.js("window.mark = 'still here'")
        port = world.listener.port
        await world.listener.close()
        await tab.until("document.getElementById('link').textContent === 'No answer from the agent'")
        assert await tab.js("document.body.dataset.stale") == "true"
        agent.run = "run2"
        agent.samples = type(agent.samples)()
        agent.sections["status"] |= totals(1, 1, 2)
        agent.sample(NOW + 60, 1, 1, 2)
        async with running(agent, quick(), port):
            await tab.until(LIVE)
            await tab.until("document.getElementById('ratio').textContent === '50.0 %'")
            assert await tab.js("document.querySelector('#chart path.store').getAttribute('d')") == ""
            assert await tab.js("window.mark") == "still here"


async def test_nobody_looks_so_nothing_is_computed(browser: Browser) -> None:
    hide = (
        "Object.defineProperty(document, 'hidden', {value: %s, configurable: true}); "
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    agent = busy()
    async with shown(browser, agent) as (world, tab):
        await tab.until("document.querySelector('#chart path.peer').getAttribute('d')")
        await tab.js(hide % "true")
        await until(lambda: world.dashboard.live.subscribers == 0)
        assert agent.cursors == [""]
        await tab.js(hide % "false")
        await until(lambda: world.dashboard.live.subscribers == 1)
        await tab.until(LIVE)
        await until(lambda: agent.cursors == ["", "run1.2"])  # what the page has is not sent again


@asynccontextmanager
async def proxied(world: World, prefix: str) -> AsyncIterator[str]:
    """A reverse proxy that puts the agent under a path, as nginx does with ``proxy_pass``; read-only."""

    async def forward(request: web.Request) -> web.StreamResponse:
        url = f"{world.url}/{request.rel_url.raw_path.removeprefix(prefix)}"
        async with world.session.get(url, params=request.query, headers={"Accept": "*/*"}) as answer:
            response = web.StreamResponse(status=answer.status)
            for name in ("Content-Type", "Content-Security-Policy", "X-Content-Type-Options"):
                if name in answer.headers:
                    response.headers[name] = answer.headers[name]
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except (aiohttp.ClientError, ConnectionError):
                pass
            return response

    app = web.Application()
    app.router.add_get(prefix + "{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"
    finally:
        await runner.cleanup()


async def test_behind_a_proxys_path(browser: Browser) -> None:
    agent = busy()
    agent.past = []
    async with (
        running(agent, quick()) as world,
        proxied(world, "/hosts/one/") as url,
        open_tab(browser) as tab,
    ):
        await tab.goto(url)
        await tab.until(LIVE)
        assert await tab.js("document.getElementById('ratio').textContent") == "90.0 %"
        await tab.js("document.querySelector('.unfold').click()")
        await tab.until("document.querySelectorAll('.layers tbody tr').length === 3")
        agent.sections["status"] |= totals(1, 1, 2)
        await tab.until("document.getElementById('ratio').textContent === '50.0 %'")
        assert await tab.js("getComputedStyle(document.querySelector('.card')).borderRadius") != "0px"
        assert tab.problems == []


async def test_an_agent_of_another_version_brings_its_own_page(browser: Browser) -> None:
    agent = busy()
    async with running(agent, quick()) as world, open_tab(browser) as tab:
        await tab.goto(f"{world.url}/")
        await tab.until(LIVE)
        await tab.js("window.mark = 'still here'")
        agent.sections["status"]["peers"] = 5
        await tab.until("document.getElementById('tiles').innerText.includes('5')")
        assert await tab.js("window.mark") == "still here"
        agent.sections["status"]["version"] = "1.3.0"
        await tab.until(f"window.mark === undefined && {LIVE}")
        await tab.until("document.getElementById('version').textContent === 'p2pdist 1.3.0'")
