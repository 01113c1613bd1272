"""Rendezvous hashing: which member a piece belongs to, agreed on without a word (Thaler and Ravishankar, 1998).

When a member joins or leaves, only the pieces that become or were its own move.
"""

from __future__ import annotations

from p2pdist.records import PeerId

_MASK = (1 << 64) - 1


def seed_of(peer: PeerId) -> int:
    """64 bits of a peer id."""
    return int.from_bytes(peer.raw[:8], "big")


def weight(seed: int, piece: int) -> int:
    """A member's weight for a piece: the finalizer of splitmix64 over both; the lowest weight comes first."""
    mixed = (seed ^ (piece * 0x9E3779B97F4A7C15)) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
