"""What must hold between keys, and between the configuration and the files that it names."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

from p2pdist.config import addresses, texts
from p2pdist.config.model import Config, ListenAddress


def crosscheck(config: Config, problems: list[str], *, files: bool) -> tuple[Config, list[str]]:
    """Append what is wrong to ``problems``; return the configuration in its final form, and warnings.

    With ``files`` false no file is looked at.
    """
    if not config.agent.data_dir.is_absolute():
        problems.append(
            f'agent.data_dir: "{config.agent.data_dir}" is relative; give an absolute path such as "/var/lib/p2pdist"'
        )
    problems += _port_clashes(config)
    problems += _cluster_faults(config)
    if files:
        problems += _missing_files(config)
    return _with_advertise_port(config), _warnings(config)


def _port_clashes(config: Config) -> list[str]:
    listeners = {
        "mirror.listen": config.mirror.listen,
        "admin.listen": config.admin.listen,
        "peer.listen": config.peer.listen,
    }
    names = list(listeners)
    return [
        f"{second} ({listeners[second]}) and {first} ({listeners[first]}) are the same port; give each its own"
        for at, first in enumerate(names)
        for second in names[at + 1 :]
        if _overlap(listeners[first], listeners[second])
    ]


def _overlap(one: ListenAddress, other: ListenAddress) -> bool:
    if one.port != other.port or one.port == 0:
        return False
    return one.host == other.host or _is_any(one.host) or _is_any(other.host)


def _is_any(host: str) -> bool:
    return not host or ipaddress.ip_address(host).is_unspecified


def _cluster_faults(config: Config) -> list[str]:
    peer, faults = config.peer, []
    if peer.insecure_open_cluster and peer.cluster_key_file is not None:
        faults.append(
            "peer.insecure_open_cluster: true contradicts peer.cluster_key_file; remove one of them"
        )
    tls = {
        "tls_cert_file": peer.tls_cert_file,
        "tls_key_file": peer.tls_key_file,
        "tls_ca_file": peer.tls_ca_file,
    }
    missing = [f"peer.{name}" for name, path in tls.items() if path is None]
    if 0 < len(missing) < len(tls):
        faults.append(
            f"{' and '.join(missing)}: missing; TLS between peers needs certificate, key and CA, or none of them"
        )
    return faults


def _missing_files(config: Config) -> list[str]:
    wanted: dict[str, Path | None] = {
        "agent.docker_config": config.docker_config_file,
        "peer.tls_cert_file": config.peer.tls_cert_file,
        "peer.tls_key_file": config.peer.tls_key_file,
        "peer.tls_ca_file": config.peer.tls_ca_file,
    }
    for registry in config.registries.values():
        wanted[f"registries.{texts.quote(registry.name)}.ca_file"] = registry.ca_file
    return [fault for name, path in wanted.items() if path is not None and (fault := _unreadable(name, path))]


def _unreadable(name: str, path: Path) -> str | None:
    try:
        if not path.is_file():
            return f"{name}: there is no file {path}"
        with path.open("rb"):
            return None
    except OSError as error:
        return f"{name}: cannot read {path} ({error.strerror})"


def _with_advertise_port(config: Config) -> Config:
    if not config.peer.advertise:
        return config
    host, port = addresses.parse_host_port(config.peer.advertise, default_port=config.peer.listen.port or 1)
    return replace(config, peer=replace(config.peer, advertise=addresses.join_host_port(host, port)))


def _warnings(config: Config) -> list[str]:
    warnings = []
    alone = config.peer.cluster_key_file is None and not config.peer.insecure_open_cluster
    if alone and config.peer.bootstrap:
        warnings.append("peer.bootstrap is given, but no peer.cluster_key_file: this agent meets no other")
    if config.peer.insecure_open_cluster:
        warnings.append(
            "peer.insecure_open_cluster: whoever reaches the peer port can read every shared blob and write records"
        )
    if not _is_loopback(config.mirror.listen):
        warnings.append(
            f"mirror.listen ({config.mirror.listen}) is not loopback: others may pull with this host's credentials"
        )
    if not _is_loopback(config.admin.listen):
        warnings.append(
            f"admin.listen ({config.admin.listen}) is not loopback, and has no password: keep strangers away"
        )
    return warnings


def _is_loopback(address: ListenAddress) -> bool:
    return bool(address.host) and ipaddress.ip_address(address.host).is_loopback
