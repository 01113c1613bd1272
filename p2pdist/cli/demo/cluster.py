"""The demo's registry and agents: started, waited for, asked, stopped."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from p2pdist.cli.demo.figures import parse_metrics, total
from p2pdist.cli.demo.workspace import Child, free_ports
from p2pdist.cli.errors import CommandError
from p2pdist.config.texts import quote
from p2pdist.wire.keys import ClusterKey

# The name the images are pulled by; no such host exists, only this configuration says where it is.
REGISTRY = "registry.example.com"
AGENT = ("p2pdist", "agent")
START_TIMEOUT = 60.0
# Enough to know that an agent has joined; a DHT member need not know every other.
PEERS_WANTED = 3
_POLL = 0.1
_URL = re.compile(r"http://127\.0\.0\.1:\d+")


# The registry's uplink in bytes per second: slower than the hosts among themselves, as it is where this is of use.
UPLINK = 16_000_000


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent and where it listens."""

    name: str
    child: Child
    mirror: str
    admin: str
    config: Path


@dataclass(slots=True)
class Cluster:
    """Owns every process; ``close`` ends them, however far ``start`` came."""

    directory: Path
    session: aiohttp.ClientSession
    registry_url: str = ""
    agents: list[Agent] = field(default_factory=list)
    _children: list[Child] = field(default_factory=list)

    async def start_registry(self, layout: Path) -> None:
        """Serve an OCI image layout, as the upstream of all agents."""
        child = await self._start(
            "registry", ["p2pdist.testing.registry", str(layout), "--port", "0", "--rate", str(UPLINK)]
        )

        async def listens() -> bool:
            match = _URL.search(child.log.read_text(errors="replace"))
            self.registry_url = match[0] if match else ""
            return bool(match)

        await self._until(listens, "the registry to listen")

    async def start_agents(self, count: int) -> None:
        """Start ``count`` agents and wait until each is ready and has met others."""
        key = self.directory / "cluster.key"
        key.touch(0o600)
        key.write_text(ClusterKey.generate().text())
        ports = free_ports(3 * count)
        mirrors, admins, peers = (ports[at::3] for at in range(3))
        meet = [f"127.0.0.1:{port}" for port in peers[:2]]
        for at in range(count):
            name = f"agent-{at + 1}"
            directory = self.directory / name
            directory.mkdir()
            config = directory / "config.toml"
            config.write_text(
                agent_config(
                    name, directory, mirrors[at], peers[at], admins[at], meet, key, self.registry_url
                )
            )
            child = await self._start(name, [*AGENT, "--config", str(config)])
            address = "http://127.0.0.1:{}".format
            self.agents.append(Agent(name, child, address(mirrors[at]), address(admins[at]), config))
        for agent in self.agents:
            await self._until(partial(self._is_ready, agent), f"{agent.name} to be ready")
        wanted = min(count - 1, PEERS_WANTED)
        for agent in self.agents:
            await self._until(partial(self._has_met, agent, wanted), f"{agent.name} to meet {wanted} others")

    async def metrics(self, agent: Agent) -> str:
        """The agent's Prometheus page."""
        async with self.session.get(f"{agent.admin}/metrics") as response:
            return await response.text()

    async def registry_counters(self) -> dict[str, Any]:
        """What the registry counted."""
        async with self.session.get(f"{self.registry_url}/_counters") as response:
            counters: dict[str, Any] = await response.json()
            return counters

    def check(self) -> None:
        """Raise CommandError if a process has ended by itself."""
        for child in self._children:
            child.check()

    def tails(self) -> str:
        """The end of every log."""
        return "\n".join(child.tail() for child in self._children)

    async def close(self) -> None:
        """Stop all processes, agents first, all at once."""
        agents = self._children[1:]
        await asyncio.gather(*(child.stop() for child in agents))
        await asyncio.gather(*(child.stop() for child in self._children[:1]))
        self._children.clear()

    async def _start(self, name: str, arguments: list[str]) -> Child:
        child = await Child.start(name, arguments, self.directory / name)
        self._children.append(child)
        return child

    async def _is_ready(self, agent: Agent) -> bool:
        async with self.session.get(f"{agent.admin}/readyz") as response:
            return response.status == 200

    async def _has_met(self, agent: Agent, wanted: int) -> bool:
        return total(parse_metrics(await self.metrics(agent)), "p2pdist_peers") >= wanted

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self.check()
            try:
                if await condition():
                    return
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass  # not listening yet
            if time.monotonic() > deadline:
                raise CommandError(f"waited {START_TIMEOUT:g} s for {what}\n{self.tails()}")
            await asyncio.sleep(_POLL)


def agent_config(
    name: str,
    directory: Path,
    mirror: int,
    peer: int,
    admin: int,
    meet: list[str],
    key: Path,
    registry_url: str,
) -> str:
    """An agent's whole configuration, as an operator would write it."""
    bootstrap = ", ".join(quote(address) for address in meet)
    return f"""\
[agent]
name = {quote(name)}
data_dir = {quote(str(directory / "data"))}
docker_config = ""

[mirror]
listen = "127.0.0.1:{mirror}"

[peer]
listen = "127.0.0.1:{peer}"
bootstrap = [{bootstrap}]
cluster_key_file = {quote(str(key))}

[admin]
listen = "127.0.0.1:{admin}"

[store]
max_size = "2GiB"

[registries.{quote(REGISTRY)}]
url = {quote(registry_url)}
"""
