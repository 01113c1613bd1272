"""The table of the worked example in docs/image-model.md, computed: ``python -m tests.unit.docs.savings``."""

from __future__ import annotations

import sys
from pathlib import Path

from p2pdist.oci.digest import Digest
from p2pdist.oci.sharing import savings
from tests.unit.docs.pages import put_between

DOCUMENT = Path(__file__).parents[3] / "docs" / "image-model.md"
BEGIN = "<!-- The table below is generated: python -m tests.unit.docs.savings -->"
END = "<!-- End of the generated table. -->"
HOSTS = (1, 8, 64)
# Megabytes of each layer: base, node and libs in all three services, then one of its own each.
SHARED = {"base": 120, "node": 40, "libs": 15}
OWN = {"svc-a": 2, "svc-b": 3, "svc-c": 1}
IMAGES = [
    {Digest.of(name.encode()): size for name, size in {**SHARED, service: megabytes}.items()}
    for service, megabytes in OWN.items()
]


def table() -> str:
    lines = [
        "| hosts | a host stores: images | layers | the registry sends: images | layers | layers, p2pdist | less by |",
        "|---|---|---|---|---|---|---|",
    ]
    for hosts in HOSTS:
        sums = savings(IMAGES, hosts)
        less = 1 - sums.pulled_shared / sums.pulled_layered
        megabytes = [
            f"{count:,} MB"
            for count in (
                sums.storage_separate,
                sums.storage_layered,
                sums.pulled_separate,
                sums.pulled_layered,
                sums.pulled_shared,
            )
        ]
        lines.append(f"| {hosts} | {' | '.join(megabytes)} | {100 * less:.1f} % |")
    return "\n".join(lines)


def replaced(text: str) -> str:
    """``text`` with a fresh table between its markers; raises ValueError when they are missing."""
    return put_between(text, BEGIN, END, table())


if __name__ == "__main__":
    DOCUMENT.write_text(replaced(DOCUMENT.read_text()))
    sys.exit(0)
