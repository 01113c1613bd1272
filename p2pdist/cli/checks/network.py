"""Checks of what lies beyond this host: bootstrap names, and the registries. In parallel, each within its bound."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
import urllib.request
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from p2pdist.cli.checks.finding import Finding, fail, ok, warn
from p2pdist.config.addresses import parse_host_port, split_host_port
from p2pdist.config.model import Config, RegistryConfig
from p2pdist.errors import DeniedError, P2PDistError

BOUND = 5.0
Ping = Callable[[str], Awaitable[str]]


def resolve(host: str, port: int, bound: float = BOUND) -> list[str]:
    """The addresses of a name; raises OSError, TimeoutError among them.

    In a daemon thread, because a lookup cannot be cancelled, and must not hold up the end of the program either.
    """
    answers: queue.Queue[list[str] | OSError] = queue.Queue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(sorted({str(entry[4][0]) for entry in found}))
        except OSError as error:
            answers.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=bound)
    except queue.Empty:
        raise TimeoutError(f"no answer within {bound:g} s") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


async def check_network(config: Config, ping: Ping) -> list[Finding]:
    """All of them at once."""
    checks = [check_bootstrap(entry) for entry in config.peer.bootstrap]
    checks += [check_registry(registry, ping) for registry in config.registries.values()]
    return list(await asyncio.gather(*checks))


async def check_bootstrap(entry: str) -> Finding:
    """Whether an address to meet others at can be resolved. That nobody is there yet is no fault: all may be starting."""
    name = f"bootstrap {entry}"
    host, port = parse_host_port(entry.removeprefix("dns:"))
    try:
        addresses = await asyncio.to_thread(resolve, host, port)
    except OSError as error:
        mend = "correct the name in peer.bootstrap, or its DNS record; the agent keeps trying meanwhile"
        return warn(name, f"{host} does not resolve ({error.strerror or error})", mend)
    return ok(
        name, ", ".join(addresses[:4]) + (f" and {len(addresses) - 4} more" if len(addresses) > 4 else "")
    )


async def check_registry(registry: RegistryConfig, ping: Ping) -> Finding:
    """Whether the registry answers, with these credentials where it wants some."""
    name = f"registry {registry.name}"
    url = urlsplit(registry.url or f"https://{registry.name}")
    try:
        if url.scheme not in urllib.request.getproxies():
            host, port = split_host_port(url.netloc)
            await asyncio.to_thread(resolve, _real_host(registry, host), port or 443)
        answer = await asyncio.wait_for(ping(registry.name), BOUND)
        return ok(name, answer.removeprefix(f"{name} "))
    except DeniedError as error:
        return fail(
            name, _bare(error, name), f'correct username and password_file in [registries."{registry.name}"]'
        )
    except (P2PDistError, OSError) as error:
        return warn(
            name,
            _why(error, name),
            f'check network and proxy; if it is not used here: [registries."{registry.name}"] enabled = false',
        )


def _bare(error: Exception, name: str) -> str:
    """What an error says, without the name that stands beside it already."""
    return str(error).removeprefix(f"{name}: ")


def _why(error: Exception, name: str) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {BOUND:g} s"
    if isinstance(error, socket.gaierror):
        return f"its name does not resolve ({error.strerror})"
    return f"unreachable: {_bare(error, name)}"


def _real_host(registry: RegistryConfig, host: str) -> str:
    return "registry-1.docker.io" if registry.name == "docker.io" and not registry.url else host
