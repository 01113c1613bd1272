"""Requests and answers between peers are proven, bound to each other, and good once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.records import PeerId
from p2pdist.wire.http_auth import (
    NONCE_BYTES,
    Challenge,
    Credentials,
    HttpAuth,
    PeerOffsets,
    SteadyWall,
    Target,
    control_headers,
)
from p2pdist.wire.http_verifier import WINDOW_MS, Refusal, Refused, Verifier

KEY = b"k" * 32
ALICE, BOB, CAROL = (PeerId(bytes([number]) * 20) for number in range(3))
ASK = Target("GET", "/p2p/v1/blobs/sha256:00?x=1", "bytes=0-9")
NOW = 1_700_000_000_000
NONCE = b"n" * NONCE_BYTES

alice, bob, carol = (HttpAuth(KEY, peer) for peer in (ALICE, BOB, CAROL))
stranger = HttpAuth(b"x" * 32, ALICE)


def nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_BYTES, "big")


def admit(
    verifier: Verifier, credentials: Credentials, target: Target = ASK, now: int = NOW
) -> Credentials | Refusal:
    verdict = verifier.admit(credentials.header(), target, now)
    return verdict.reason if isinstance(verdict, Refused) else verdict


def test_a_request_is_admitted_once() -> None:
    verifier = Verifier(bob)
    credentials = alice.sign(ASK, BOB, NOW, NONCE)
    assert admit(verifier, credentials) == credentials
    assert admit(verifier, credentials) is Refusal.REPLAY
    assert admit(verifier, alice.sign(ASK, BOB, NOW, nonce(1))) != Refusal.REPLAY


@pytest.mark.parametrize(
    "target",
    [
        Target("HEAD", ASK.path, ASK.range),
        Target("GET", ASK.path[:-1], "1" + ASK.range),
        Target("GET", ASK.path, "bytes=0-99"),
        Target("GET", ASK.path),
        Target("GE", "T" + ASK.path, ASK.range),
    ],
)
def test_a_request_is_good_for_what_it_asks_only(target: Target) -> None:
    assert admit(Verifier(bob), alice.sign(ASK, BOB, NOW, NONCE), target) is Refusal.MAC


def test_a_request_is_good_for_its_recipient_only() -> None:
    assert admit(Verifier(carol), alice.sign(ASK, BOB, NOW, NONCE)) is Refusal.MAC


def test_a_request_to_anyone_is_good_only_where_that_is_allowed() -> None:
    header = alice.sign(ASK, None, NOW, NONCE).header()
    assert isinstance(Verifier(bob).admit(header, ASK, NOW), Refused)
    assert isinstance(Verifier(bob).admit(header, ASK, NOW, anyone=True), Credentials)


def test_another_key_proves_nothing() -> None:
    assert admit(Verifier(bob), stranger.sign(ASK, BOB, NOW, NONCE)) is Refusal.MAC


def test_another_sender_time_or_nonce_breaks_the_mac() -> None:
    good = alice.sign(ASK, BOB, NOW, NONCE)
    for forged in (
        Credentials(CAROL, good.time_ms, good.nonce, good.mac),
        Credentials(good.peer, good.time_ms + 1, good.nonce, good.mac),
        Credentials(good.peer, good.time_ms, nonce(1), good.mac),
        Credentials(good.peer, good.time_ms, good.nonce, bytes(32)),
    ):
        assert admit(Verifier(bob), forged) is Refusal.MAC


@pytest.mark.parametrize(
    ("skew", "good"),
    [(0, True), (WINDOW_MS, True), (-WINDOW_MS, True), (WINDOW_MS + 1, False), (-WINDOW_MS - 1, False)],
)
def test_the_time_window(skew: int, good: bool) -> None:
    verdict = admit(Verifier(bob), alice.sign(ASK, BOB, NOW + skew, NONCE))
    assert isinstance(verdict, Credentials) if good else verdict is Refusal.TIME


@pytest.mark.parametrize(
    "header", [None, "", "Bearer x", "P2PDist v1", "P2PDist v1 " + "a" * 10_000, "\udcff"]
)
def test_what_is_not_of_the_scheme_gets_no_challenge(header: str | None) -> None:
    assert Verifier(bob).admit(header, ASK, NOW) == Refused(Refusal.MALFORMED, None)


@given(st.text(max_size=300))
def test_any_header_is_read_or_refused(text: str) -> None:
    for prefix in ("", "P2PDist v1 ", "P2PDist v1 peer="):
        try:
            credentials = Credentials.parse(prefix + text)
        except InvalidInputError:
            continue
        assert Credentials.parse(credentials.header()) == credentials


@given(
    peer=st.binary(min_size=20, max_size=20),
    time_ms=st.integers(0, 10**15 - 1),
    nonce=st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
    mac=st.binary(min_size=32, max_size=32),
)
def test_headers_round_trip(peer: bytes, time_ms: int, nonce: bytes, mac: bytes) -> None:
    credentials = Credentials(PeerId(peer), time_ms, nonce, mac)
    assert Credentials.parse(credentials.header()) == credentials


@given(st.data())
def test_no_change_of_a_header_is_admitted_twice(data: st.DataObject) -> None:
    """Base64 has spare bits and the like: whatever is done to a header, it opens at most once."""
    verifier = Verifier(bob)
    header = alice.sign(ASK, BOB, NOW, NONCE).header()
    assert isinstance(verifier.admit(header, ASK, NOW), Credentials)
    at = data.draw(st.integers(0, len(header) - 1))
    changed = header[:at] + data.draw(st.characters(max_codepoint=127)) + header[at + 1 :]
    assert isinstance(verifier.admit(changed, ASK, NOW), Refused)


def test_forgetting_for_lack_of_room_lets_no_replay_in() -> None:
    verifier = Verifier(bob, capacity=10)
    sent = [alice.sign(ASK, BOB, NOW + number * 500, nonce(number)) for number in range(40)]
    for credentials in sent:
        assert isinstance(admit(verifier, credentials, now=credentials.time_ms), Credentials)
    end = sent[-1].time_ms
    assert {admit(verifier, credentials, now=end) for credentials in sent} <= {
        Refusal.TIME,
        Refusal.REPLAY,
    }


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(-130, 130), st.integers(0, 5)), max_size=60))
def test_nothing_is_ever_admitted_twice(steps: list[tuple[int, int, int]]) -> None:
    verifier = Verifier(bob, capacity=8)
    admitted: set[bytes] = set()
    now = NOW
    for wait, skew, number in steps:
        now += wait * 100
        # Few distinct times and nonces, so that replays do occur.
        time_ms = (now + skew * 1000) // 10_000 * 10_000
        credentials = alice.sign(ASK, BOB, time_ms, nonce(number))
        if isinstance(admit(verifier, credentials, now=now), Credentials):
            assert credentials.mac not in admitted
            admitted.add(credentials.mac)


def test_a_restart_lets_no_replay_in_and_no_sender_out() -> None:
    earlier = alice.sign(ASK, BOB, NOW - 1, NONCE)
    assert isinstance(admit(Verifier(bob), earlier), Credentials)
    restarted = Verifier(bob, NOW)
    refused = restarted.admit(earlier.header(), ASK, NOW)
    assert isinstance(refused, Refused)
    assert refused.reason is Refusal.TIME
    told = alice.read_challenge(refused.challenge or "", NONCE).time_ms
    assert NOW < told <= NOW + 1000
    assert isinstance(admit(restarted, alice.sign(ASK, BOB, told, nonce(1))), Credentials)


def test_the_memory_is_bounded_and_emptied_by_time() -> None:
    verifier = Verifier(bob, capacity=100)
    for number in range(1000):
        admit(verifier, alice.sign(ASK, BOB, NOW + number, nonce(number)), now=NOW + number)
    assert verifier._seen._count <= 100
    later = NOW + 10 * WINDOW_MS
    assert isinstance(admit(verifier, alice.sign(ASK, BOB, later, NONCE), now=later), Credentials)
    assert verifier._seen._count == 1


# -- challenges --


def test_an_honest_sender_with_a_wrong_clock_learns_the_time() -> None:
    verifier, offsets = Verifier(bob), PeerOffsets()
    here = NOW - 86_400_000
    refused = verifier.admit(alice.sign(ASK, BOB, here, NONCE).header(), ASK, NOW)
    assert isinstance(refused, Refused)
    assert refused.challenge is not None
    challenge = alice.read_challenge(refused.challenge, NONCE)
    assert challenge == Challenge(BOB, NOW)
    offsets.learn(challenge, here)
    again = alice.sign(ASK, BOB, offsets.time_for(BOB, here + 5), nonce(1))
    assert isinstance(admit(verifier, again, now=NOW + 5), Credentials)
    assert offsets.time_for(CAROL, here) == here


@pytest.mark.parametrize(
    "header",
    [
        "",
        "time=1",
        stranger.challenge(NONCE, NOW),
        bob.challenge(nonce(1), NOW),
        bob.challenge(NONCE, NOW).replace(BOB.hex, CAROL.hex),
        bob.challenge(NONCE, NOW).replace(str(NOW), str(NOW + 1)),
        "x" * 10_000,
    ],
)
def test_a_challenge_by_a_stranger_or_for_another_request_is_refused(header: str) -> None:
    with pytest.raises(InvalidInputError):
        alice.read_challenge(header, NONCE)


def test_offsets_are_bounded() -> None:
    offsets = PeerOffsets(capacity=2)
    for peer in (ALICE, BOB, CAROL):
        offsets.learn(Challenge(peer, NOW + 7), NOW)
    assert [offsets.time_for(peer, NOW) for peer in (ALICE, BOB, CAROL)] == [NOW, NOW + 7, NOW + 7]


# -- answers --

HEADERS = {
    "Content-Length": "10",
    "content-range": "bytes 0-9/100",
    "P2PDist-Media-Type": "t",
    "Date": "today",
}


def test_an_answer_is_sealed_whatever_the_case_and_order_of_its_headers() -> None:
    request = alice.sign(ASK, BOB, NOW, NONCE)
    seal = bob.seal(request, 206, HEADERS)
    received = {name.upper(): value for name, value in reversed(HEADERS.items())}
    received |= {"DATE": "tomorrow", "P2PDist-Mac": seal, "Server": "x"}
    alice.check_seal(seal, request, BOB, 206, received)


@pytest.mark.parametrize(
    "change",
    [
        {"Content-Length": "11"},
        {"content-range": "bytes 0-9/101"},
        {"P2PDist-Media-Type": "u"},
        {"P2PDist-New": ""},
        {"Retry-After": "1"},
    ],
)
def test_a_changed_control_header_breaks_the_seal(change: dict[str, str]) -> None:
    request = alice.sign(ASK, BOB, NOW, NONCE)
    seal = bob.seal(request, 206, HEADERS)
    with pytest.raises(InvalidInputError):
        alice.check_seal(seal, request, BOB, 206, HEADERS | change)


def test_a_seal_holds_for_one_request_sender_and_status() -> None:
    request, other = alice.sign(ASK, BOB, NOW, NONCE), alice.sign(ASK, BOB, NOW, nonce(1))
    seal = bob.seal(request, 200, HEADERS)
    for sealed, sender, status in ((other, BOB, 200), (request, CAROL, 200), (request, BOB, 206)):
        with pytest.raises(InvalidInputError):
            alice.check_seal(seal, sealed, sender, status, HEADERS)
    for forged in ("", "x" * 43, stranger.seal(request, 200, HEADERS), seal + "=", "\udcff" * 43):
        with pytest.raises(InvalidInputError):
            alice.check_seal(forged, request, BOB, 200, HEADERS)


def test_endless_control_headers_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        control_headers((f"P2PDist-{number}", "x") for number in range(1000))


def test_no_message_of_one_kind_passes_for_another() -> None:
    """Field boundaries and labels are part of what is covered."""
    request = alice.sign(Target("GET", "/a", "b"), BOB, NOW, NONCE)
    assert request.mac != alice.sign(Target("GET", "/ab", ""), BOB, NOW, NONCE).mac
    assert request.mac != alice.sign(Target("GET/", "a", "b"), BOB, NOW, NONCE).mac


def test_steady_wall_follows_the_monotonic_clock() -> None:
    steady = SteadyWall(wall=1000.5, now=7.0)
    assert steady.ms(7.0) == 1_000_500
    assert steady.ms(8.25) == 1_001_750
