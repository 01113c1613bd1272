"""``p2pdist demo``: its options, and the order of things."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable

import aiohttp
import click

from p2pdist.cli.demo import show
from p2pdist.cli.demo.cluster import REGISTRY, Cluster
from p2pdist.cli.demo.figures import AgentFigures, Figures, judge, registry_bytes
from p2pdist.cli.demo.images import ImageSet, build
from p2pdist.cli.demo.runtime import Runtime
from p2pdist.cli.demo.workspace import Workspace
from p2pdist.cli.errors import CommandError, ExitCode
from p2pdist.cli.output import emit_json

# Counters are read until both ends agree: the last bytes are counted a moment after they arrived.
SETTLE_TIMEOUT = 5.0


@click.command(
    short_help="See it work on this machine.",
    epilog="""\b
Examples:
  p2pdist demo                   three hosts, images at a tenth of their size
  p2pdist demo --agents 8
  p2pdist demo --scale 1 --keep  full size; then look around: open the dashboards it names
\b
Exits 0 only if every promise held, 4 if one did not. It needs no root, no network and no container runtime.""",
)
@click.option(
    "--agents",
    type=click.IntRange(1, 64),
    default=3,
    show_default=True,
    help="Hosts, each with its own agent.",
)
@click.option(
    "--scale",
    type=click.FloatRange(0.001, 4),
    default=0.1,
    show_default=True,
    help="Image sizes, as a part of the worked example's 181 MB.",
)
@click.option("--keep", is_flag=True, help="Leave all running until Ctrl-C, and keep the files.")
@click.option("--json", "as_json", is_flag=True, help="Print figures and promises as JSON.")
def demo(agents: int, scale: float, keep: bool, as_json: bool) -> int:
    """See it work: a registry, several agents, and three images pulled on all of them at once.

    Each agent is a process of its own, with its own ports and directory. A client per agent pulls as a container
    runtime would, checks every digest, and counts. The demo then compares what registry, agents and clients counted.
    """
    workspace = Workspace()
    try:
        return asyncio.run(_supervised(workspace, agents, scale, keep, as_json))
    except asyncio.CancelledError:
        return ExitCode.INTERRUPTED
    finally:
        if keep:
            workspace.keep()
            show.step(f"kept: {workspace.path}")
        else:
            workspace.remove()


async def _supervised(workspace: Workspace, agents: int, scale: float, keep: bool, as_json: bool) -> int:
    """Run as a task that the first signal cancels; later signals change nothing, so that cleaning up is not cut short."""
    loop = asyncio.get_running_loop()
    run = loop.create_task(_run(workspace, agents, scale, keep, as_json))
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            run.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return await run


async def _run(workspace: Workspace, agents: int, scale: float, keep: bool, as_json: bool) -> int:
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        cluster = Cluster(workspace.path, session)
        try:
            show.step("building three images that share layers ...")
            images = await asyncio.to_thread(build, workspace.path / "images", scale)
            show.step(f"starting a registry and {agents} agents ...")
            await cluster.start_registry(images.layout)
            await cluster.start_agents(agents)
            show.step(f"pulling {len(images.names)} images on {agents} hosts at once ...")
            figures = await _pull_everywhere(cluster, images)
            promises = judge(figures)
            emit_json(show.as_json(figures, promises)) if as_json else show.show(figures, promises)
            if keep:
                await _wait_for_the_user(cluster)
            return ExitCode.OK if all(promise.held for promise in promises) else ExitCode.PROMISE_BROKEN
        finally:
            await cluster.close()


async def _pull_everywhere(cluster: Cluster, images: ImageSet) -> Figures:
    names = [agent.name for agent in cluster.agents]
    started = time.monotonic()
    with show.progress(names, images.unique_bytes) as advances:
        runtimes = [
            Runtime(cluster.session, agent.mirror, REGISTRY, advance)
            for agent, advance in zip(cluster.agents, advances, strict=True)
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                for runtime in runtimes:
                    tasks.create_task(runtime.pull(images.names))
        except BaseExceptionGroup as group:
            raise first_failure(group, cluster.tails) from group
    seconds = time.monotonic() - started
    cluster.check()
    return await _settled(cluster, images, runtimes, seconds)


async def _settled(cluster: Cluster, images: ImageSet, runtimes: list[Runtime], seconds: float) -> Figures:
    deadline = time.monotonic() + SETTLE_TIMEOUT
    while True:
        figures = await _read(cluster, images, runtimes, seconds)
        if all(promise.held for promise in judge(figures, bound=math.inf)) or time.monotonic() > deadline:
            return figures
        await asyncio.sleep(0.1)


async def _read(cluster: Cluster, images: ImageSet, runtimes: list[Runtime], seconds: float) -> Figures:
    agents = [
        AgentFigures.of(agent.name, await cluster.metrics(agent), runtime.bytes)
        for agent, runtime in zip(cluster.agents, runtimes, strict=True)
    ]
    sent = registry_bytes(await cluster.registry_counters())
    return Figures(tuple(agents), sent, images.unique_bytes, images.image_bytes, seconds)


def first_failure(group: BaseExceptionGroup[BaseException], tails: Callable[[], str]) -> CommandError:
    """The first thing that went wrong, as one error with the ends of the logs."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    code = error.code if isinstance(error, CommandError) else ExitCode.FAILED
    what = (
        str(error) if isinstance(error, CommandError) else f"a pull failed: {type(error).__name__}: {error}"
    )
    return CommandError(f"{what}\n{tails()}", "run it again with --keep to look at the logs", code)


async def _wait_for_the_user(cluster: Cluster) -> None:
    """Until Ctrl-C, which is no failure here."""
    show.step(f"\nregistry {cluster.registry_url}/_counters")
    for agent in cluster.agents:
        show.step(f"{agent.name}: mirror {agent.mirror}, dashboard {agent.admin}/, log {agent.child.log}")
    show.step(f"for example: bin/p2pdist status --admin {cluster.agents[0].admin.removeprefix('http://')}")
    show.step("running until Ctrl-C ...")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        show.step("stopping ...")
