"""The diagrams of docs/architecture.md, drawn from the code: ``python -m tests.unit.docs.lifecycles``."""

from __future__ import annotations

import sys
from pathlib import Path

from p2pdist.swarm.peer_health import _NEXT, Standing
from tests.unit.docs.pages import put_between

DOCUMENT = Path(__file__).parents[3] / "docs" / "architecture.md"
BEGIN = "<!-- The diagram below is generated: python -m tests.unit.docs.lifecycles -->"
END = "<!-- End of the generated diagram. -->"


def peer_standing() -> str:
    """The life of a peer's standing in mermaid; an arrow for each pair, with all outcomes that lead there."""
    names = {standing: standing.value.replace(" ", "_") for standing in Standing}
    lines = ["stateDiagram-v2", f"    [*] --> {names[Standing.OK]}"]
    for before, outcomes in _NEXT.items():
        for after in Standing:
            leading = [outcome.value for outcome, then in outcomes.items() if then is after]
            if leading and before is not after:
                lines.append(f"    {names[before]} --> {names[after]}: {', '.join(leading)}")
        if before is not Standing.OK:
            lines.append(f"    {names[before]} --> {names[Standing.OK]}: its time is up")
    return "```mermaid\n" + "\n".join(lines) + "\n```"


def replaced(text: str) -> str:
    """``text`` with a fresh diagram between its markers; raises ValueError when they are missing."""
    return put_between(text, BEGIN, END, peer_standing())


if __name__ == "__main__":
    DOCUMENT.write_text(replaced(DOCUMENT.read_text()))
    sys.exit(0)
