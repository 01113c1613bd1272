"""What the log tells of swarm messages that are not understood: a little."""

from __future__ import annotations

import logging
from typing import cast

import pytest

from p2pdist.oci.digest import Digest
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.store.port import Store
from p2pdist.testing.clock import ManualClock
from p2pdist.transfer.swarm_hub import SwarmHub
from p2pdist.wire import codec
from p2pdist.wire.swarm_messages import Join, encode

ANNA, BERT = PeerId(b"a" * 20), PeerId(b"b" * 20)
DIGEST = Digest.of(b"x")


async def test_a_kind_that_is_unknown_is_told_once_per_peer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hub = SwarmHub(cast(Store, None), ManualClock())
    for sender in (ANNA, BERT, ANNA, BERT):
        assert hub.received(sender, codec.pack((9, str(DIGEST), "a later kind"))) is None
    told = [(record.levelname, record.getMessage()[:15]) for record in caplog.records]
    assert told == [("INFO", f"peer {each.short}") for each in (ANNA, BERT)]


async def test_faults_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    hub = SwarmHub(cast(Store, None), clock)
    posing = encode(Join(DIGEST, 1, Provider(BERT, (Endpoint("10.0.0.1", 1),)), frozenset()))
    for _ in range(3):
        for frame in (b"\xc1", posing):
            assert hub.received(ANNA, frame) is None
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    await clock.advance(61.0)
    hub.received(ANNA, b"\xc1")
    assert caplog.text.count("sent a bad swarm message") == 2
