"""Tests of programs that Debian 12 has no package of, or one too old: where the program is not there they are no part of the
run, and its head says so. All others are run or fail in continuous integration.
"""

from __future__ import annotations

import shutil

NOT_PACKAGED = {"e2e/test_setup_crio.py": "crio", "unit/deploy/test_kubectl.py": "kubectl"}
collect_ignore = [name for name, program in NOT_PACKAGED.items() if shutil.which(program) is None]


def pytest_report_header() -> list[str]:
    return [f"not in this run: tests/{name}, for want of {NOT_PACKAGED[name]}" for name in collect_ignore]
