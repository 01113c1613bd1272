"""What ``p2pdist setup`` did, or would do, as a value for ``--json``, and the words for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from p2pdist.cli.setup.diff import unified
from p2pdist.cli.setup.plan import Step

UNCHANGED, LEFT = "unchanged", "left alone"


def what(step: Step, *, remove: bool) -> str:
    """One word for what becomes of a file; those of ``LEFT`` have a problem that says why."""
    if step.problem:
        return LEFT
    if not step.changes:
        return UNCHANGED
    if step.after is None:
        return "removed"
    if remove or step.entry is None:
        return "restored"
    return "wrote" if step.now is None else "changed"


def report(
    runtime: str, steps: Mapping[str, Step], notes: Sequence[str], *, remove: bool, dry_run: bool
) -> dict[str, Any]:
    """The object that ``--json`` prints; ``steps`` by path. ``diff`` is "" unless it is a dry run."""
    return {
        "runtime": runtime,
        "dry_run": dry_run,
        "changed": any(step.changes for step in steps.values()),
        "files": [
            {
                "path": path,
                "what": what(step, remove=remove),
                "problem": step.problem,
                "remark": step.remark,
                "diff": "\n".join(unified(path, step.now, step.after)) if dry_run else "",
            }
            for path, step in steps.items()
        ],
        "notes": list(notes),
    }
