"""A disk that is really full: a tmpfs of 8 MiB, in a mount namespace of its own that dies with the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.adapters.store import full_child


def test_a_full_disk_is_a_clean_error_and_loses_nothing(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    script = 'mount -t tmpfs -o size=8m p2pdist-test "$1" && exec "$2" -m "$3" "$1"'
    command = [*unshare, "sh", "-c", script, "sh", str(tmp_path), sys.executable, full_child.__name__]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert "bytes free where 16777216 are to be written" in answer.stdout
    assert "the disk is full: writing to" in answer.stdout
    assert "lower store.max_size" in answer.stdout
    assert answer.stdout.endswith("nothing lost\n")
