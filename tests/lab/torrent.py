"""The alternative that knows no registries: libtorrent, as it comes, on the same files. One process per host.

    python -m tests.lab.torrent make DIRECTORY FILE          # a torrent of a directory's files
    python -m tests.lab.torrent run PLAN                     # PLAN: JSON, see ``run``

Needs the bench extra (libtorrent).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import libtorrent as lt

TICK = 0.1
PIECE = 512 * 1024
# Nothing but the connections that the plan names; everything else is libtorrent's default.
SETTINGS: Any = {
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "allow_multiple_connections_per_ip": True, "alert_mask": 0,
}  # fmt: skip


def make(directory: Path, target: Path) -> None:
    """Write a torrent of all files in a directory."""
    files = lt.list_files(str(directory))
    torrent = lt.create_torrent(files, PIECE)
    lt.set_piece_hashes(torrent, str(directory.parent))
    target.write_bytes(lt.bencode(torrent.generate()))


def run(plan: dict[str, Any]) -> None:
    """Share until the plan's ``until``; says when all is here. Keys: address, port, torrent, save, peers, start, until."""
    session = lt.session({**SETTINGS, "listen_interfaces": f"{plan['address']}:{plan['port']}"})  # type: ignore[call-overload]  # its stubs know no plain dict
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(plan["torrent"])
    parameters.save_path = plan["save"]
    if plan["seed"]:
        parameters.flags |= lt.torrent_flags.seed_mode
    time.sleep(max(0.0, plan["start"] - time.monotonic()))
    handle = session.add_torrent(parameters)
    for address in plan["peers"]:
        handle.connect_peer((address, plan["port"]))
    done = False
    while time.monotonic() < plan["until"]:
        status = handle.status()
        emit(
            at=time.monotonic() - plan["start"],
            bytes=status.total_wanted_done,
            sent=status.total_payload_upload,
        )
        if status.is_seeding and not done:
            done = True
            emit(done=time.monotonic() - plan["start"])
        time.sleep(TICK)


def emit(**event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        run(json.loads(sys.argv[2]))
