"""Which step of an image's history made which of its layers (OCI image-spec config.md, "history").

Rules:
- A config lists its steps oldest first; each that is not ``empty_layer`` made one layer, in the manifest's order.
- The two lists come from strangers, and may not agree. Layers that no step accounts for are lines of their own, the
  newest ones; a step that has no layer left to it is shown without one. Nothing is guessed, and no layer is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2pdist.oci.descriptor import Descriptor
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import HistoryEntry, ImageConfig

_UNTOLD = HistoryEntry()


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a history. ``layer`` is None for an empty step, and for one whose layer the manifest lacks;
    ``diff_id`` is the digest of the layer's uncompressed tar, where the config names one."""

    entry: HistoryEntry
    layer: Descriptor | None = None
    diff_id: Digest | None = None

    @property
    def size(self) -> int:
        """Bytes of the layer's blob, as it is stored and transferred; 0 without a layer."""
        return self.layer.size if self.layer else 0


def steps(config: ImageConfig, layers: Sequence[Descriptor]) -> tuple[Step, ...]:
    """The history of an image of these ``layers`` (base first), newest step first."""
    made = [_step(config, layers, number) for number in range(len(layers))]
    told: list[Step] = []
    used = 0
    for entry in config.history:
        if entry.empty_layer or used == len(made):
            told.append(Step(entry))
            continue
        told.append(Step(entry, made[used].layer, made[used].diff_id))
        used += 1
    return tuple(reversed(told + made[used:]))


def _step(config: ImageConfig, layers: Sequence[Descriptor], number: int) -> Step:
    diff_id = config.diff_ids[number] if number < len(config.diff_ids) else None
    return Step(_UNTOLD, layers[number], diff_id)
