"""What the admin listener asks of the agent about images (api.admin_images.ImageBackend)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from p2pdist.agent.backend import own_platform
from p2pdist.oci.descriptor import Descriptor, Platform
from p2pdist.oci.reference import Reference
from p2pdist.oci.sharing import Share
from p2pdist.store.port import Store, TagEntry
from p2pdist.transfer.disk_usage import ImageUse, disk_usage
from p2pdist.transfer.held_images import HeldImage
from p2pdist.transfer.host_counts import HostCounts
from p2pdist.transfer.image_diff import image_diff
from p2pdist.transfer.image_history import HistoryLine, image_history
from p2pdist.transfer.tag_history import PastTag, tag_history


class ImageAnswers:
    """Answers with plain JSON values, shaped as api/admin_images.py says."""

    def __init__(self, store: Store, counts: HostCounts) -> None:
        self._store = store
        self._counts = counts

    async def history(self, reference: Reference, platform: Platform | None) -> dict[str, Any]:
        found = await image_history(self._store, self._counts, reference, platform, own_platform())
        config = found.image.own.manifest.config
        return {
            **_image(found.image),
            "image_id": str(config.digest) if config else "",
            "platform": str(found.config.platform),
            "created": found.config.created,
            "counted": found.counted,
            "history": [_line(line) for line in found.lines],
        }

    async def tag_history(self, reference: Reference | None) -> dict[str, Any]:
        return {"history": [_past_tag(each) for each in await tag_history(self._store, reference)]}

    async def disk_usage(self) -> dict[str, Any]:
        found = await disk_usage(self._store)
        usage = found.usage
        return {
            "images": [_use(image) for image in found.images],
            "store": {
                "committed": usage.committed,
                "reserved": usage.reserved,
                "quota": usage.quota,
                "blobs": usage.blobs,
            },
            "separate": found.separate,
            "layered": found.layered,
            "saved": found.saved,
            "other": found.other,
            "reclaimable": found.reclaimable,
            "unpinned": found.unpinned,
        }

    async def diff(self, old: Reference, new: Reference, platform: Platform | None) -> dict[str, Any]:
        found = await image_diff(self._store, old, new, platform, own_platform())
        return {
            "from": _image(found.old),
            "to": _image(found.new),
            "shared": _layers(found.shared),
            "added": _layers(found.added),
            "dropped": _layers(found.dropped),
            "shared_bytes": sum(layer.size for layer in found.shared),
            "moved_bytes": sum(found.moved.values()),
            "missing_bytes": sum(found.missing.values()),
            "moved": [
                {"digest": str(digest), "size": size, "held": digest not in found.missing}
                for digest, size in found.moved.items()
            ],
        }


def _image(image: HeldImage) -> dict[str, Any]:
    return {
        "reference": str(image.reference),
        "digest": str(image.top.digest),
        "manifest": str(image.own.digest),
        "size": sum(image.sizes().values()),
    }


def _line(line: HistoryLine) -> dict[str, Any]:
    step = line.step
    return {
        "created": step.entry.created,
        "created_by": step.entry.created_by,
        "comment": step.entry.comment,
        "empty": step.entry.empty_layer,
        "layer": str(step.layer.digest) if step.layer else None,
        "diff_id": str(step.diff_id) if step.diff_id else None,
        "media_type": step.layer.media_type if step.layer else "",
        "size": step.size,
        "foreign": line.foreign,
        "held": line.held,
        "hosts": line.hosts,
    }


def _past_tag(past: PastTag) -> dict[str, Any]:
    return {
        "reference": _name(past.entry),
        "digest": str(past.entry.digest),
        "first_seen": past.entry.first_seen,
        "resolved_at": past.entry.resolved_at,
        "current": past.current,
        "held": past.held,
        "held_bytes": sum(past.contents.held.values()) if past.contents else 0,
        "size": sum(past.contents.sizes.values()) if past.contents else None,
    }


def _use(image: ImageUse) -> dict[str, Any]:
    return {
        "references": _names(image.tags),
        "past_references": _names(image.past_tags),
        "digest": str(image.digest),
        **_share(image.share),
        "layers": _share(image.layers),
        "complete": image.contents.complete,
        "platforms": list(image.contents.platforms),
        "pulled_at": image.pulled_at,
    }


def _share(share: Share) -> dict[str, int]:
    return {"size": share.total, "shared": share.shared, "unique": share.unique}


def _layers(layers: Iterable[Descriptor]) -> list[dict[str, Any]]:
    return [
        {"digest": str(layer.digest), "media_type": layer.media_type, "size": layer.size} for layer in layers
    ]


def _names(entries: Iterable[TagEntry]) -> list[str]:
    return sorted(_name(entry) for entry in entries)


def _name(entry: TagEntry) -> str:
    return f"{entry.repository}:{entry.tag}"
