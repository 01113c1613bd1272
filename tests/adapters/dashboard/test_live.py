"""The overview and its stream: what is sent, when, to how many, and who is cut."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from p2pdist.api.dashboard import live
from p2pdist.api.dashboard.live import Live, LiveSettings
from p2pdist.errors import StoreError
from p2pdist.testing.clock import ManualClock
from tests.adapters.api.registry_edge import until
from tests.adapters.dashboard.world import FakeDashboard, World, busy_sections, quick, running

NAMES = {"status", "savings", "transfers", "peers", "images", "history", "beat"}


async def test_the_overview_is_everything_at_once(world: World) -> None:
    world.agent.sections = busy_sections()
    world.agent.sample(100.0, 1, 2, 3)
    told = await world.json("/api/v1/overview")
    assert told.keys() == NAMES | {"cursor"}
    assert {name: told[name] for name in world.agent.sections} == world.agent.sections
    assert told["beat"] == {"time": 1795000000.0, "uptime": 3700.0}
    assert told["history"]["samples"] == [[0, 100.0, 1, 2, 3, 2, 3, 7_000_000]]
    assert (await world.json(f"/api/v1/overview?after={told['cursor']}"))["history"]["samples"] == []


async def test_a_stream_begins_with_everything_and_goes_on_with_what_changes(world: World) -> None:
    world.agent.sample(100.0, 0, 0, 0)
    async with world.events() as stream:
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        assert stream.response.headers["Cache-Control"] == "no-store"
        first = await stream.first(len(NAMES))
        assert first.keys() == NAMES
        assert {name: first[name].data for name in world.agent.sections} == world.agent.sections
        world.agent.sections["peers"] = {"count": 7, "peers": []}
        event = await stream.next()
        assert (event.name, event.data["count"]) == ("peers", 7)
        world.agent.sample(105.0, 5, 0, 0)
        event = await stream.next()
        assert (event.name, event.id) == ("history", "run1.1")
        assert [row[0] for row in event.data["samples"]] == [1]


async def test_a_reader_that_comes_back_gets_the_samples_that_it_missed(world: World) -> None:
    for time in range(3):
        world.agent.sample(float(time), time, 0, 0)
    for options in ({"headers": {"Last-Event-ID": "run1.1"}}, {"params": {"after": "run1.1"}}):
        async with world.events(**options) as stream:
            assert [row[0] for row in (await stream.until("history")).data["samples"]] == [2]
    for unknown in ("run0.1", "nonsense", "x" * 5000, ""):
        async with world.events(headers={"Last-Event-ID": unknown}) as stream:
            assert [row[0] for row in (await stream.until("history")).data["samples"]] == [0, 1, 2]


async def test_a_quiet_stream_has_a_heartbeat() -> None:
    async with running(settings=quick(beat=0.05)) as world, world.events() as stream:
        await stream.first(len(NAMES))
        for _ in range(3):
            assert (await stream.next()).name == "beat"


async def test_so_many_readers_and_no_more_and_a_place_is_free_when_one_leaves() -> None:
    async with running(settings=quick(max_subscribers=3)) as world:
        responses = [await world.session.get(f"{world.url}/api/v1/events") for _ in range(3)]
        for response in responses:
            assert response.status == 200
        status, headers, body = await world.get("/api/v1/events")
        assert (status, headers["Retry-After"]) == (429, "30")
        assert "overview" in json.loads(body)["error"]["message"]
        assert (await world.json("/api/v1/overview"))["beat"]
        responses[0].close()
        await until(lambda: world.dashboard.live.subscribers == 2)
        async with world.events() as stream:
            assert (await stream.next()).name == "beat"
        for response in responses[1:]:
            response.close()
        await until(lambda: world.dashboard.live.subscribers == 0)


async def test_many_readers_share_one_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SECTIONS", dict.fromkeys(live.SECTIONS, 3600.0))
    async with running(settings=quick(max_subscribers=32)) as world:
        gate = world.agent.gate = asyncio.Event()
        asking = [asyncio.ensure_future(world.session.get(f"{world.url}/api/v1/events")) for _ in range(32)]
        await until(lambda: world.dashboard.live.subscribers == 32)
        gate.set()
        for response in await asyncio.gather(*asking):
            await response.content.readline()
            response.close()
        assert set(world.agent.asked.values()) == {1}


async def test_a_reader_that_takes_nothing_is_cut_and_harms_no_other() -> None:
    async with running(settings=quick(interval=0.001, write_timeout=0.3)) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.listener.port, limit=1024)
        writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await reader.readline()
        async with world.events() as stream:
            number = 0
            while world.dashboard.live.subscribers == 2:
                number += 1
                world.agent.sections["images"] = {"count": number, "images": ["x" * 200_000]}
                while (await stream.until("images")).data["count"] < number:
                    pass
        writer.transport.abort()


async def test_a_slow_reader_skips_states() -> None:
    """What is sent is the state as it is when it can be sent: nothing queues up."""
    clock = ManualClock()
    agent = FakeDashboard()
    stream = Live(agent, LiveSettings(), clock)._events("")
    await anext(stream)
    await anext(stream)
    for count in range(1, 50):
        agent.sections["peers"] = {"count": count, "peers": []}
        await clock.advance(10)
    waiting = asyncio.ensure_future(anext(stream))
    await clock.advance(10)
    assert (await waiting).count(b"event: peers") == 1
    assert b'"count":49' in waiting.result()


async def test_sections_are_not_computed_more_often_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SECTIONS", {"status": 1.0, "images": 4.0})
    clock, agent = ManualClock(), FakeDashboard()
    computed = Live(agent, LiveSettings(), clock)
    for _ in range(20):
        await computed.sections()
        await clock.advance(0.5)
    assert agent.asked == {"status": 10, "images": 3}


async def test_a_costly_section_is_computed_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SECTIONS", {"images": 4.0})
    monkeypatch.setattr(live, "_COST", 20.0)
    clock, agent = ManualClock(), FakeDashboard()
    section = agent.section

    async def slow(name: str) -> Any:
        await clock.sleep(2.0)
        return await section(name)

    agent.section = slow  # type: ignore[method-assign]
    computed = Live(agent, LiveSettings(), clock)
    for _ in range(42):
        asking = asyncio.ensure_future(computed.sections())
        await clock.advance(2.0)
        await asking
    assert agent.asked == {"images": 2}


async def test_what_fails_at_once_is_an_error_and_later_the_streams_end(world: World) -> None:
    world.agent.error = StoreError("the disk is gone")
    for path in ("/api/v1/overview", "/api/v1/events"):
        status, _, body = await world.get(path)
        assert (status, json.loads(body)["error"]["message"]) == (500, "the disk is gone")
    world.agent.error = None
    async with world.events() as stream:
        await stream.first(len(NAMES))
        world.agent.error = StoreError("the disk is gone")
        with pytest.raises((AssertionError, aiohttp.ClientError)):
            await stream.next()
    await until(lambda: world.dashboard.live.subscribers == 0)
