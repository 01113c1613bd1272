"""What members say of pieces: first-hand words bind, hearsay does not, upstream's is the truth."""

from __future__ import annotations

from p2pdist.testing.memory_peers import peer_id
from p2pdist.transfer.attestation import HEARSAY, Attestations, Verdict

ANNA, BERT, LIAR = peer_id("anna"), peer_id("bert"), peer_id("liar")
TRUE, FALSE = b"t" * 16, b"f" * 16


def test_a_piece_of_which_nobody_spoke_is_unattested_unless_it_is_upstreams() -> None:
    said = Attestations()
    assert said.arrived(0, TRUE, from_upstream=False) is Verdict.UNATTESTED
    assert said.arrived(1, TRUE, from_upstream=True) is Verdict.AGREED


def test_only_what_came_from_upstream_is_attested() -> None:
    said = Attestations()
    said.arrived(0, TRUE, from_upstream=False)
    said.arrived(1, TRUE, from_upstream=True)
    assert said.first_hand(0) == HEARSAY
    assert said.first_hand(1) == TRUE


def test_hearsay_neither_confirms_nor_disputes() -> None:
    said = Attestations()
    said.said(0, ANNA, HEARSAY)
    assert said.arrived(0, TRUE, from_upstream=False) is Verdict.UNATTESTED
    assert said.vouchers(0) == set()
    said.arrived(0, TRUE, from_upstream=True)
    assert said.liars(0) == set()


def test_who_attested_what_is_held_vouches_for_it() -> None:
    said = Attestations()
    said.said(0, ANNA, TRUE)
    assert said.arrived(0, TRUE, from_upstream=False) is Verdict.AGREED
    assert said.vouchers(0) == {ANNA}


def test_a_dispute_is_open_until_upstream_decides() -> None:
    said = Attestations()
    said.said(0, ANNA, TRUE)
    said.said(0, LIAR, FALSE)
    assert said.arrived(0, FALSE, from_upstream=False) is Verdict.DISPUTED
    assert said.liars(0) == set()
    assert said.arrived(0, TRUE, from_upstream=True) is Verdict.DISPUTED
    assert said.liars(0) == {LIAR}
    said.forget(LIAR)
    assert said.said(0, BERT, TRUE) is Verdict.AGREED


def test_the_truth_is_not_replaced_by_what_a_peer_sends_later() -> None:
    said = Attestations()
    said.arrived(0, TRUE, from_upstream=True)
    said.arrived(0, FALSE, from_upstream=False)
    assert said.digest(0) == TRUE


def test_what_upstream_set_right_after_it_may_have_been_passed_on_is_not_attested() -> None:
    """Its digest is not that of the bytes which others got from here meanwhile."""
    said = Attestations()
    said.arrived(0, FALSE, from_upstream=False)
    said.arrived(0, TRUE, from_upstream=True)
    said.arrived(1, TRUE, from_upstream=False)
    said.arrived(1, TRUE, from_upstream=True)  # it was right all along
    assert said.is_true(0)
    assert said.first_hand(0) == HEARSAY
    assert said.first_hand(1) == TRUE
    assert said.known == ((1, TRUE),)
    said.arrived(0, TRUE, from_upstream=True)
    assert said.first_hand(0) == HEARSAY


def test_what_came_of_a_member_in_part_is_not_attested_either() -> None:
    said = Attestations()
    said.begun(0)
    said.arrived(0, TRUE, from_upstream=True)
    assert said.is_true(0)
    assert said.first_hand(0) == HEARSAY
