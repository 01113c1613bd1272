"""Steps and layers find each other, also where a config tells too many or too few."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.descriptor import Descriptor, Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.history import steps
from p2pdist.oci.manifest import HistoryEntry, ImageConfig
from p2pdist.oci.media_types import OCI_LAYER

BASE, NODE, APP = (
    Descriptor(OCI_LAYER, Digest.of(name), size) for name, size in ((b"b", 120), (b"n", 40), (b"a", 2))
)


def config(*entries: HistoryEntry, diff_ids: int = 0) -> ImageConfig:
    ids = tuple(Digest.of(b"tar %d" % number) for number in range(diff_ids))
    return ImageConfig(Platform("linux", "amd64"), "", entries, ids)


def made(name: str) -> HistoryEntry:
    return HistoryEntry(created_by=name)


def empty(name: str) -> HistoryEntry:
    return HistoryEntry(created_by=name, empty_layer=True)


def test_each_step_that_made_a_layer_has_it_newest_first() -> None:
    told = steps(config(made("base"), empty("ENV"), made("node"), empty("CMD"), diff_ids=2), [BASE, NODE])
    assert [(step.entry.created_by, step.layer, step.size) for step in told] == [
        ("CMD", None, 0),
        ("node", NODE, 40),
        ("ENV", None, 0),
        ("base", BASE, 120),
    ]
    assert [step.diff_id for step in told] == [None, Digest.of(b"tar 1"), None, Digest.of(b"tar 0")]


def test_the_same_layer_twice_is_two_lines() -> None:
    told = steps(config(made("one"), made("two")), [BASE, BASE])
    assert [step.layer for step in told] == [BASE, BASE]


@pytest.mark.parametrize(
    ("entries", "layers"),
    [((), [BASE, NODE]), ((made("base"),), [BASE, NODE]), ((empty("ENV"),), [BASE])],
)
def test_layers_that_no_step_tells_of_are_lines_of_their_own(
    entries: tuple[HistoryEntry, ...], layers: list[Descriptor]
) -> None:
    told = steps(config(*entries), layers)
    assert [step.layer for step in told if step.layer] == list(reversed(layers))
    assert told[0].layer == layers[-1]
    assert told[0].entry.created_by == ""


def test_a_step_too_many_has_no_layer() -> None:
    told = steps(config(made("base"), made("lost")), [BASE])
    assert [(step.entry.created_by, step.layer) for step in told] == [("lost", None), ("base", BASE)]


@given(st.lists(st.booleans(), max_size=20), st.integers(0, 20))
def test_no_layer_and_no_step_is_left_out(empties: list[bool], count: int) -> None:
    entries = [HistoryEntry(created_by=str(number), empty_layer=flag) for number, flag in enumerate(empties)]
    layers = [Descriptor(OCI_LAYER, Digest.of(b"%d" % number), number) for number in range(count)]
    told = tuple(reversed(steps(config(*entries), layers)))
    assert [step.layer for step in told if step.layer] == layers
    assert [step.entry for step in told if step.entry.created_by] == entries
    assert all(step.layer is None for step in told if step.entry.empty_layer)
