"""docs/first-hour.md from a real run: ``python -m tests.first_hour --write``, as root.

``bin/.e2e-packages.sh`` installs what it needs. Without ``--write`` the page is printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.e2e.docs.hour import PAGE, Hour, play, render
from tests.e2e.docs.machines import Machine
from tests.e2e.lab import Lab
from tests.e2e.wheels import download_wheels


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        wheels = download_wheels(Path(directory))
        lab = Lab(hosts=0)
        machines: list[Machine] = []
        try:
            machines += [Machine(lab, number, wheels) for number in (1, 2)]
            hour = Hour(lab, machines)
            play(hour)
            page = render(hour)
        finally:
            for machine in machines:
                machine.close()
            lab.close()
    if "--write" in sys.argv:
        PAGE.write_text(page)
    else:
        sys.stdout.write(page)


if __name__ == "__main__":
    main()
