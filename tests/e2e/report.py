"""The table of cases at the end of a run: what was tried with which runtime, how it went, and where the bytes came from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Row:
    """One case. Bytes are bodies of blobs and manifests, over all hosts."""

    case: str
    variant: str
    result: str = "?"
    seconds: float = 0.0
    upstream_bytes: int = 0
    peer_bytes: int = 0
    client_bytes: int = 0

    def cells(self) -> list[str]:
        sizes = [megabytes(n) for n in (self.upstream_bytes, self.peer_bytes, self.client_bytes)]
        return [self.case, self.variant, self.result, f"{self.seconds:.1f}", *sizes]


HEADER = ["case", "with", "result", "seconds", "MB from upstream", "MB from peers", "MB to clients"]


@dataclass
class Report:
    """Collects rows; ``lines`` draws them."""

    rows: list[Row] = field(default_factory=list)
    not_run: str = ""

    def lines(self) -> list[str]:
        table = [HEADER, *(row.cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in table) for column in range(len(HEADER))]
        drawn = [
            "  ".join(
                _pad(cell, width, column > 2)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        ]
        return [drawn[0], "  ".join("-" * width for width in widths), *drawn[1:]]


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f}" if count else "-"


def _pad(cell: str, width: int, number: bool) -> str:
    return cell.rjust(width) if number else cell.ljust(width)
