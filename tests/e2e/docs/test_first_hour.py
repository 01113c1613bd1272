"""docs/first-hour.md: its commands were run on two new machines with the real containerd; what came of it."""

from __future__ import annotations

from tests.e2e.docs.hour import PULL, Hour, Step, commands, render, shown_commands


def printed(hour: Hour, command: str, on: int) -> str:
    return next(
        text
        for step, text in hour.printed
        if isinstance(step, Step) and (step.command, step.on) == (command, on)
    )


def test_the_commands_that_ran_are_those_that_the_page_shows(hour: Hour) -> None:
    assert [(step.on, step.command) for step, _ in hour.printed] == commands()
    assert shown_commands(render(hour)) == commands()


def test_the_registry_sent_each_blob_once(hour: Hour) -> None:
    images = [hour.images[tag] for tag in ("1.27", "1.28")]
    once = {
        digest: len(data)
        for image in images
        for digest, data in image.image.blobs.items()
        if isinstance(data, bytes)
    }
    assert hour.served.blob_bytes == sum(once.values())
    assert "1.00 copies" in render(hour)


def test_the_second_host_had_it_from_the_first(hour: Hour) -> None:
    first, second = (printed(hour, "p2pdist status", on) for on in (1, 2))
    size = f"{hour.images['1.27'].size / 1e6:.1f} MB"
    assert f"0 B peer, {size} upstream" in first
    assert f"{size} peer, 0 B upstream" in second
    assert "(100.0 %) did not cross the upstream link" in second


def test_the_first_host_had_the_update_from_the_second(hour: Hour) -> None:
    added = hour.images["1.28"].image.layers[-1].size
    moved = printed(hour, "p2pdist diff nginx:1.27 nginx:1.28", 1)
    assert f"an update moves {added / 1e6:.1f} MB" in moved
    assert added <= hour.from_peers[0] < 1.1 * added
    assert "done:" in printed(hour, f"{PULL}:1.28", 1)


def test_without_the_agent_the_registry_was_asked(hour: Hour) -> None:
    assert "done:" in printed(hour, f"{PULL}:1.26", 2)
    after = hour.lab.upstream.served(hour.since).blob_bytes - hour.served.blob_bytes
    assert after >= hour.images["1.26"].image.layers[-1].size
    assert "nginx:1.26" not in printed(hour, "p2pdist images", 2)


def test_setup_left_nothing_behind(hour: Hour) -> None:
    assert "certs.d" not in hour.machine(2).sh("ls /etc/containerd")
