"""How an image came to be: its steps, and where each layer is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from p2pdist.oci.descriptor import Platform
from p2pdist.oci.digest import Digest
from p2pdist.oci.history import Step, steps
from p2pdist.oci.manifest import ImageConfig, is_foreign
from p2pdist.oci.reference import Reference
from p2pdist.store.port import Store
from p2pdist.transfer.held_images import HeldImage, check_platform, held_image, image_config
from p2pdist.transfer.host_counts import HostCounts

MAX_ASKED = 128


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """A step; ``held`` and ``hosts`` are of its layer. ``hosts`` counts this one too; None where nobody was asked, or
    did not answer in time."""

    step: Step
    held: bool
    hosts: int | None

    @property
    def foreign(self) -> bool:
        """Whether its layer comes from another place than a registry, so that no store holds it."""
        return self.step.layer is not None and is_foreign(self.step.layer)


@dataclass(frozen=True, slots=True)
class ImageHistory:
    """Newest line first. ``counted`` when there is a cluster, and it may be asked about this registry."""

    image: HeldImage
    config: ImageConfig
    lines: tuple[HistoryLine, ...]
    counted: bool


async def image_history(
    store: Store, counts: HostCounts, reference: Reference, platform: Platform | None, own: Platform
) -> ImageHistory:
    """The history of an image for ``platform`` (None: for ``own``, where it is an index).

    Raises as ``held_image`` and ``image_config``.
    """
    image = await held_image(store, reference, platform or own)
    config = await image_config(store, image)
    if platform is not None and len(image.chain) == 1:
        check_platform(reference, config, platform)
    told = steps(config, image.own.manifest.layers)
    held = {item for item in _layers(told) if await store.stat(item) is not None}
    counted = counts.shared(reference.repository) and not counts.alone()
    others = await counts.others(reference.repository, _layers(told)[:MAX_ASKED]) if counted else {}
    lines = []
    for step in told:
        digest = step.layer.digest if step.layer else None
        hosts = others[digest] + (digest in held) if digest in others else None
        lines.append(HistoryLine(step, digest in held, hosts))
    return ImageHistory(image, config, tuple(lines), counted)


def _layers(told: Iterable[Step]) -> list[Digest]:
    return list(
        dict.fromkeys(step.layer.digest for step in told if step.layer and not is_foreign(step.layer))
    )
