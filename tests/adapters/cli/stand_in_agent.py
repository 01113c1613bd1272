"""A stand-in for the agent, for testing the demo itself: passes every request on to upstream, shares nothing, counts."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from p2pdist.config.load import load_config

REGISTRY = CollectorRegistry()
CLIENT = Counter("p2pdist_client_bytes", "", ["registry", "source"], registry=REGISTRY)
RECEIVED = Counter("p2pdist_received_bytes", "", ["source"], registry=REGISTRY)
PEERS = Gauge("p2pdist_peers", "", registry=REGISTRY)


async def main(file: Path) -> None:
    config = load_config(file, {}, {})
    PEERS.set(10)
    async with aiohttp.ClientSession() as session:

        async def relay(request: web.Request) -> web.StreamResponse:
            url = config.registries[request.query["ns"]].url + request.path
            async with session.request(request.method, url) as answer:
                body = await answer.read()
                RECEIVED.labels("upstream").inc(len(body))
                CLIENT.labels(request.query["ns"], "upstream").inc(len(body))
                headers = {"Docker-Content-Digest": answer.headers["Docker-Content-Digest"]}
                return web.Response(status=answer.status, body=body, headers=headers)

        async def metrics(request: web.Request) -> web.Response:
            return web.Response(body=generate_latest(REGISTRY))

        mirror, admin = web.Application(), web.Application()
        mirror.router.add_route("*", "/v2/{tail:.*}", relay)
        admin.router.add_get("/readyz", metrics)
        admin.router.add_get("/metrics", metrics)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        runners = [web.AppRunner(mirror), web.AppRunner(admin)]
        for runner, listen in zip(runners, (config.mirror.listen, config.admin.listen), strict=True):
            await runner.setup()
            await web.TCPSite(runner, listen.host, listen.port).start()
        await stop.wait()
        for runner in runners:
            await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[sys.argv.index("--config") + 1])))
