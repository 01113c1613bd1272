"""The screenshots in the documents, made anew: python -m tests.dashboard_shots DIRECTORY (default: docs)

A registry, three agents and a handful of images that share layers; some pulled before, one on its way on all hosts.
It takes about five minutes, and needs Chromium.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp

from p2pdist.cli.demo.cluster import REGISTRY, Agent, Cluster
from p2pdist.cli.demo.runtime import Runtime
from p2pdist.cli.demo.workspace import Workspace
from p2pdist.testing.images import MB, Image, build_image, write_layout
from p2pdist.testing.layers import Layer, build_layer
from tests.browser import Browser, Tab, open_tab

WIDTH = 1200
OPEN = "shop/web"


def build(layout: Path) -> None:
    def layer(name: str, megabytes: float, seed: int = 1) -> Layer:
        return build_layer(name, round(megabytes * MB), seed=seed, directory=layout)

    base, node, python = layer("base", 74), layer("node", 38), layer("python", 46)
    images: list[Image] = [
        build_image("shop/web", "2.4", [base, node, layer("web-libs", 21), layer("web", 4.2)]),
        build_image("shop/cart", "1.19", [base, node, layer("checkout", 6.1)]),
        build_image("shop/search", "0.8", [base, python, layer("search-libs", 33), layer("search", 2.7)]),
        build_image("ml/ranking", "7", [base, python, layer("torch", 190), layer("model", 64)]),
    ]
    write_layout(images, layout)


async def pull(cluster: Cluster, agents: list[Agent], *images: tuple[str, str]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for agent in agents:
            runtime = Runtime(cluster.session, agent.mirror, REGISTRY, lambda _: None)
            tasks.create_task(runtime.pull(list(images)))


async def uplink(cluster: Cluster, rate: int) -> None:
    async with cluster.session.post(f"{cluster.registry_url}/_faults", json={"rate": rate}) as answer:
        assert answer.status < 300, await answer.text()


async def day(cluster: Cluster) -> None:
    """What a cluster sees, in five minutes."""
    one, two, three = cluster.agents
    await uplink(cluster, 9_000_000)
    await pull(cluster, [one, two, three], ("shop/web", "2.4"))
    await asyncio.sleep(12)
    await pull(cluster, [two], ("shop/cart", "1.19"))
    await asyncio.sleep(9)
    await pull(cluster, [one], ("shop/cart", "1.19"))
    await asyncio.sleep(20)
    await pull(cluster, [one, two, three], ("shop/search", "0.8"))
    await asyncio.sleep(16)
    await asyncio.sleep(31)
    await pull(cluster, [one], ("shop/cart", "1.19"))
    await asyncio.sleep(18)
    await pull(cluster, [two, three], ("shop/cart", "1.19"))
    await asyncio.sleep(20)
    await pull(cluster, [one], ("shop/web", "2.4"))
    await asyncio.sleep(22)


async def shoot(tab: Tab, url: str, scheme: str, file: Path) -> None:
    await tab.prefer(prefers_color_scheme=scheme)
    await tab.resize(WIDTH, 900)
    await tab.goto(url)
    await tab.until("document.getElementById('link').textContent === 'Live'")
    button = f"[...document.querySelectorAll('.unfold')].find(each => each.textContent.includes('{OPEN}'))"
    await tab.until(f"Boolean({button})")
    await tab.js(f"{button}.click()")
    await tab.until("document.querySelectorAll('.layers tbody tr').length")
    await tab.until("document.querySelectorAll('.transfers .name').length")
    await tab.js("document.activeElement.blur()")
    await asyncio.sleep(4)
    await tab.resize(WIDTH, await tab.js("document.documentElement.scrollHeight"))
    await asyncio.sleep(1)
    await tab.screenshot(file)
    print(file, tab.problems)


async def main(target: Path) -> None:
    workspace = Workspace()
    browser = Browser(workspace.path)
    try:
        layout = workspace.path / "images"
        await asyncio.to_thread(build, layout)
        async with aiohttp.ClientSession() as session:
            cluster = Cluster(workspace.path, session)
            try:
                await cluster.start_registry(layout)
                await cluster.start_agents(3)
                await day(cluster)
                await uplink(cluster, 5_500_000)
                arriving = asyncio.ensure_future(pull(cluster, cluster.agents, ("ml/ranking", "7")))
                await asyncio.sleep(12)
                async with open_tab(browser) as tab:
                    url = cluster.agents[0].admin + "/"
                    await shoot(tab, url, "light", target / "dashboard.png")
                    await shoot(tab, url, "dark", target / "dashboard-dark.png")
                await arriving
            finally:
                await cluster.close()
    finally:
        browser.close()
        workspace.remove()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")))
