"""The table holds those heard from, suspects those that miss, and finds the truly nearest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from kademlia.node import Node

from p2pdist.discovery.routing import PROBE_AFTER, ContactTable, RoundTrip
from p2pdist.records import ContentKey, Endpoint, PeerId

HERE = Endpoint("10.0.0.1", 5051)
ELSEWHERE = Endpoint("10.0.0.2", 5051)
ME = PeerId(bytes(20))


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(20, "big"))


def table(*numbers: int, bucket: int = 4) -> ContactTable:
    made = ContactTable(ME, bucket)
    for number in numbers:
        made.heard(peer(number), HERE, b"s", 0.0)
    return made


def test_only_a_word_from_itself_makes_a_contact() -> None:
    contacts = table()
    assert contacts.hearsay(peer(1), HERE) is not None
    assert len(contacts) == 0
    _, news = contacts.heard(peer(1), HERE, b"s", 1.0)
    assert news
    assert len(contacts) == 1


def test_a_restart_is_news_and_a_second_word_is_not() -> None:
    contacts = table(1)
    assert contacts.heard(peer(1), HERE, b"s", 1.0)[1] is False
    assert contacts.heard(peer(1), HERE, b"new session", 2.0)[1] is True


def test_one_that_moved_is_reached_where_it_speaks_from() -> None:
    contacts = table(1)
    neighbour, _ = contacts.heard(peer(1), ELSEWHERE, b"s", 1.0)
    assert (neighbour.endpoint, neighbour.ip) == (ELSEWHERE, "10.0.0.2")
    assert contacts.hearsay(peer(1), HERE) is neighbour
    assert neighbour.endpoint == ELSEWHERE


def test_a_suspect_is_out_until_it_speaks() -> None:
    contacts = table(1, 2)
    suspect = contacts.known(peer(1))
    assert suspect is not None
    contacts.suspect(suspect, 10.0)

    assert contacts.is_suspect(peer(1))
    assert contacts.hearsay(peer(1), HERE) is None
    assert [n.peer for n in contacts.contacts()] == [peer(2)]
    again, news = contacts.heard(peer(1), HERE, b"s", 11.0)
    assert again is suspect
    assert news
    assert not contacts.is_suspect(peer(1))


def test_suspects_are_asked_ever_less_often_and_then_forgotten() -> None:
    contacts = table(1)
    suspect = contacts.known(peer(1))
    assert suspect is not None
    now = 0.0
    contacts.suspect(suspect, now)
    asked = []
    for _ in range(2000):
        now += 1
        for neighbour in contacts.due_suspects(now, 9):
            asked.append(now)
            contacts.suspect(neighbour, now)
    assert asked == [1.0, 6.0, 36.0, 156.0, 756.0]
    assert len(asked) == len(PROBE_AFTER)
    assert not contacts.is_suspect(peer(1))
    assert contacts.hearsay(peer(1), HERE) is not None


def test_this_node_is_not_its_own_contact() -> None:
    assert table().hearsay(ME, HERE) is None


def test_a_full_bucket_keeps_the_old_and_replaces_the_dead() -> None:
    far = [(1 << 159) + i for i in range(1, 8)]
    contacts = table(*far, bucket=4)
    assert len(contacts) == 4
    kept = contacts.contacts()
    waiting, news = contacts.heard(peer(far[6]), HERE, b"s", 1.0)
    assert not news

    contacts.suspect(kept[0], 2.0)

    assert len(contacts) == 4
    assert waiting in contacts.contacts()


def test_the_quietest_are_named_first() -> None:
    contacts = table(1, 2, 3)
    contacts.heard(peer(2), HERE, b"s", 50.0)
    contacts.heard(peer(1), HERE, b"s", 20.0)
    assert [n.peer for n in contacts.quiet(30.0, 5)] == [peer(3), peer(1)]


@given(st.sets(st.integers(1, (1 << 160) - 1), max_size=80), st.integers(0, (1 << 160) - 1))
def test_the_nearest_in_the_table_are_found(numbers: set[int], target: int) -> None:
    contacts = table(*numbers, bucket=8)
    inside = sorted(n.long_id ^ target for n in contacts.contacts())

    found = contacts.find_neighbors(Node(target.to_bytes(20, "big")), 5)

    assert [n.long_id ^ target for n in found] == inside[:5]
    assert len(contacts) >= min(8, len(numbers))


@given(st.sets(st.integers(1, (1 << 160) - 1), max_size=80), st.data())
def test_the_index_is_what_the_buckets_hold(numbers: set[int], data: st.DataObject) -> None:
    contacts = table(*numbers, bucket=4)
    for neighbour in contacts.contacts():
        if data.draw(st.booleans()):
            contacts.suspect(neighbour, 1.0)
    held = {n.id for bucket in contacts.buckets for n in bucket.get_nodes()}
    assert held == {n.id for n in contacts.contacts()}


FAR, NEAR = (1 << 159) + 1, 1 << 158


def searched(contacts: ContactTable, at: float = 1.0) -> ContactTable:
    """A search in each bucket has named nobody new."""
    for low, _ in [bucket.range for bucket in contacts.buckets]:
        contacts.searched(ContentKey((low + 1).to_bytes(20, "big")), at, news=False)
    return contacts


def key(place: int) -> ContentKey:
    return ContentKey(place.to_bytes(20, "big"))


def test_a_full_bucket_leaves_the_others_settled() -> None:
    contacts = searched(table(*(FAR + i for i in range(7)), *(NEAR + i for i in range(3)), bucket=4))
    assert contacts.settled(key(NEAR + 9), 3)
    assert not contacts.settled(key(FAR + 9), 3)
    assert not contacts.settled(key(NEAR + 9), 4)  # the fourth is in the full one


def test_only_a_search_there_settles_a_bucket() -> None:
    contacts = table(*(FAR + i for i in range(3)), *(NEAR + i for i in range(3)), bucket=4)
    contacts.searched(key(NEAR), 1.0, news=False)
    assert contacts.settled(key(NEAR), 3)
    assert not contacts.settled(key(FAR), 3)
    contacts.searched(key(FAR), 1.0, news=False)
    assert contacts.settled(key(FAR), 6)
    contacts.searched(key(FAR), 2.0, news=True)
    assert not contacts.settled(key(FAR), 3)


def test_someone_new_unsettles_where_it_belongs() -> None:
    contacts = searched(table(*(FAR + i for i in range(2)), *(NEAR + i for i in range(3)), bucket=4))
    contacts.heard(peer(FAR + 9), HERE, b"s", 5.0)
    assert contacts.settled(key(NEAR), 3)
    assert not contacts.settled(key(FAR), 2)
    searched(contacts, at=6.0)
    assert contacts.settled(key(FAR), 2)


def test_whoever_knows_few_is_settled_when_it_has_looked() -> None:
    assert not table(1, 2).settled(key(5), 8)
    assert searched(table(1, 2)).settled(key(5), 8)


@given(
    st.sets(st.integers(1, (1 << 160) - 1), max_size=80), st.integers(0, (1 << 160) - 1), st.integers(1, 8)
)
def test_where_it_is_settled_the_nearest_met_are_known(numbers: set[int], target: int, most: int) -> None:
    contacts = searched(table(*numbers, bucket=8))
    if contacts.settled(key(target), most):
        found = [n.long_id for n in contacts.find_neighbors(Node(target.to_bytes(20, "big")), most)]
        assert found == sorted(numbers, key=lambda number: number ^ target)[:most]


def test_round_trips_follow_the_rfc() -> None:
    rtt = RoundTrip()
    assert rtt.bound(4, 0.02, 0.3) == 0.3
    rtt.sample(0.1)
    assert (rtt.smoothed, rtt.variation) == (0.1, 0.05)
    assert rtt.bound(4, 0.02, 0.5) == 0.1 + 4 * 0.05
    for _ in range(200):
        rtt.sample(0.001)
    assert rtt.bound(4, 0.02, 0.3) == 0.02
