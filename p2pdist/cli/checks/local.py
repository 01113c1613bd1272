"""Checks of this host: data directory, disk, ports, clock, kernel limits. They leave no trace."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from p2pdist.cli.checks.finding import Finding, fail, ok, warn
from p2pdist.cli.output import human_bytes
from p2pdist.config.model import Config, ListenAddress

# Connections of clients and peers, upstream, and open blobs: what a busy agent may hold at once, with room to spare.
WANTED_FILES = 4096
# A clock before this code was written is wrong, and TLS certificates will not verify.
EARLIEST_YEAR = 2025


def check_data_dir(config: Config) -> Iterator[Finding]:
    """Whether the agent, run as this user, could write there."""
    path = config.agent.data_dir
    existing = next(place for place in (path, *path.parents) if place.exists())
    if not existing.is_dir():
        yield fail("data directory", f"{existing} is not a directory", "set agent.data_dir to a directory")
        return
    try:
        with tempfile.TemporaryFile(dir=existing, prefix=".p2pdist-check-"):
            pass
    except OSError as error:
        mend = f"run as the agent's user, or: install -d -o USER {path}"
        yield fail("data directory", f"{existing} is not writable ({error.strerror})", mend)
        return
    yield ok("data directory", str(path) if existing == path else f"{path} (will be made)")
    yield _check_room(existing, path, config.store.max_size)


def _check_room(existing: Path, path: Path, quota: int) -> Finding:
    held = _tree_size(path)
    room = shutil.disk_usage(existing).free + held
    if room >= quota:
        return ok("disk space", f"{human_bytes(room)} for a store of at most {human_bytes(quota)}")
    detail = f"only {human_bytes(room)} for a store of at most {human_bytes(quota)}"
    return warn("disk space", detail, "lower store.max_size, or move agent.data_dir to a larger disk")


def _tree_size(path: Path) -> int:
    total = 0
    for directory, _, names in os.walk(path, onerror=lambda error: None):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except OSError:
                continue
    return total


def check_tls(config: Config) -> Iterator[Finding]:
    """Whether the files for TLS between peers fit together; nothing when there are none."""
    peer = config.peer
    if peer.tls_cert_file is None or peer.tls_key_file is None or peer.tls_ca_file is None:
        return
    name = "peer TLS"
    try:
        context = ssl.create_default_context(cafile=str(peer.tls_ca_file))
        # An empty password rather than a prompt, should the key be encrypted.
        context.load_cert_chain(peer.tls_cert_file, peer.tls_key_file, password="")
    except (OSError, ssl.SSLError) as error:
        mend = "peer.tls_cert_file, tls_key_file and tls_ca_file: PEM, unencrypted, the key belonging to the certificate"
        yield fail(name, f"the files cannot be used ({error})", mend)
        return
    yield ok(name, f"{peer.tls_cert_file}")


def check_containerd(config: Config) -> Iterator[Finding]:
    """Whether containerd's content store can be read, as this user; nothing where none is configured."""
    root = config.store.containerd_content
    if root is None:
        return
    blobs = root / "blobs" / "sha256"
    try:
        count = sum(1 for _ in os.scandir(blobs))
    except FileNotFoundError:
        yield warn(
            "containerd content",
            f"there is no {blobs}",
            "store.containerd_content names the directory that has blobs/: ROOT/io.containerd.content.v1.content",
        )
    except OSError as error:
        yield fail(
            "containerd content",
            f"{blobs} cannot be read ({error.strerror})",
            "run as the agent's user; if that cannot read it either: AmbientCapabilities=CAP_DAC_READ_SEARCH in its unit",
        )
    else:
        yield ok("containerd content", f"{count} blobs in {root}, seeded from there")


def check_ports(config: Config, running: str | None) -> Iterator[Finding]:
    """Whether the listeners could be opened. ``running`` names the agent that answers at admin.listen, if one does."""
    alone = config.peer.cluster_key_file is None and not config.peer.insecure_open_cluster
    yield _check_port("mirror.listen", config.mirror.listen, (socket.SOCK_STREAM,), running)
    yield _check_port("admin.listen", config.admin.listen, (socket.SOCK_STREAM,), running)
    if alone:
        yield ok("peer.listen", "off: no cluster key, so this agent serves its own host only")
    else:
        yield _check_port("peer.listen", config.peer.listen, (socket.SOCK_STREAM, socket.SOCK_DGRAM), running)


def _check_port(
    name: str, address: ListenAddress, kinds: tuple[socket.SocketKind, ...], running: str | None
) -> Finding:
    for kind in kinds:
        error = _try_bind(address, kind)
        if error is None:
            continue
        if error.errno == errno.EADDRINUSE and running:
            return ok(name, f"{address}, held by the running agent {running}")
        protocol = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
        if error.errno == errno.EADDRINUSE:
            mend = (
                f"stop what listens there (ss -lnp 'sport = :{address.port}'), or set {name} to another port"
            )
            return fail(name, f"{address} ({protocol}) is in use by another program", mend)
        if error.errno == errno.EACCES:
            return fail(name, f"{address} may not be opened by this user", f"set {name} to a port above 1023")
        if error.errno == errno.EADDRNOTAVAIL:
            return fail(
                name,
                f"{address} is no address of this host",
                f"set {name} to one of this host's, or to :{address.port}",
            )
        return fail(name, f"{address} cannot be opened ({error.strerror})", f"set {name} to another address")
    return ok(name, f"{address} is free")


def _try_bind(address: ListenAddress, kind: socket.SocketKind) -> OSError | None:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                # As the agent does: connections that linger from an earlier run are no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
            if kind == socket.SOCK_STREAM:
                probe.listen(1)
    except OSError as error:
        return error
    return None


def check_clock(now: float | None = None) -> Finding:
    """Whether the year can be right."""
    year = time.gmtime(time.time() if now is None else now).tm_year
    if year < EARLIEST_YEAR:
        return fail(
            "clock",
            f"it says {year}: certificates will not verify",
            "set the time, or enable NTP (timedatectl set-ntp true)",
        )
    return ok("clock", f"the year is {year}")


def check_open_files() -> Finding:
    """The limit on open files that a daemon started from here would have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    best = hard if hard != resource.RLIM_INFINITY else WANTED_FILES
    if best < WANTED_FILES:
        mend = f"raise it: LimitNOFILE={WANTED_FILES} in the unit, or ulimit -n {WANTED_FILES}"
        return warn("open files", f"at most {best} at once", mend)
    return ok(
        "open files",
        f"{soft} at once, may be raised to {hard if hard != resource.RLIM_INFINITY else 'any number'}",
    )
