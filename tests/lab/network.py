"""The lab's network: hosts on a bridge with their links shaped each way, and what happens to links: loss, cuts, slowness.

On top of tests/e2e/netlab.py (namespaces, and cleaning up after killed runs). Rates are Mbit/s, 0 is unshaped.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.e2e.guard import Run
from tests.e2e.netlab import Host, NetLab, command
from tests.lab.scenario import Link

# The burst holds one 64 KiB segment, or tbf would drop it.
TBF = ("burst", "128kb", "latency", "50ms")
FRAME = 66  # Ethernet, IP and TCP headers with timestamps, once per segment as the interface counts them


@dataclass(frozen=True, slots=True)
class Traffic:
    """Payload bytes over one host's link, headers taken off by estimate."""

    received: int
    sent: int


class Network:
    """Hosts h1.. and ``up``, where the registry is; ``extra`` hosts besides (a cache, say) are the last ones."""

    def __init__(self, run: Run, count: int) -> None:
        self._net = NetLab(run, count, ["registry.lab"])
        self._rules = itertools.count(1)
        self._introduce()

    @property
    def up(self) -> Host:
        return self._net.up

    @property
    def hosts(self) -> Sequence[Host]:
        return self._net.hosts

    def shape(self, host: Host, link: Link) -> None:
        """Limit a link, each way; the bridge's end sends what the host receives."""
        ends = ((host.namespace, "eth0", link.up), (host.switch, f"v-{host.name}", link.down))
        for namespace, device, rate in ends:
            where = ["tc", "-n", namespace, "qdisc"]
            if rate:
                shaper = ["root", "tbf", "rate", f"{round(rate * 1000)}kbit", *TBF]
                command([*where, "replace", "dev", device, *shaper])
            elif "tbf" in command([*where, "show", "dev", device]):
                command([*where, "delete", "dev", device, "root"])

    def _introduce(self) -> None:
        """Let hosts know each other's MAC addresses for good: what they learn by themselves is bounded by one table for all
        namespaces (net.ipv4.neigh.default.gc_thresh3, 1,024 as a rule, which 33 hosts exceed), permanent entries are not."""
        hosts = [*self.hosts, self.up]
        shown = {
            host: json.loads(command(["ip", "-n", host.namespace, "-j", "link", "show", "eth0"]))
            for host in hosts
        }
        macs = {host: links[0]["address"] for host, links in shown.items()}
        for host in hosts:
            lines = [
                f"neigh replace {other.address} lladdr {mac} dev eth0 nud permanent\n"
                for other, mac in macs.items()
                if other is not host
            ]
            command(["ip", "-n", host.namespace, "-batch", "-"], text="".join(lines))

    def lose(self, hosts: Iterable[Host], percent: float) -> str:
        """Drop so many of the packets to these hosts; returns the name by which ``undo`` ends it."""
        mark = f"numgen random mod 10000 < {round(percent * 100)}"
        return self._rule(f"ip daddr {h.address} {mark}" for h in hosts)

    def part(self, some: Iterable[Host], others: Iterable[Host]) -> str:
        """Drop every packet between two sets; returns the name by which ``undo`` ends it."""
        pairs = [pair for a, b in itertools.product(list(some), list(others)) for pair in ((a, b), (b, a))]
        return self._rule(f"ip saddr {a.address} ip daddr {b.address}" for a, b in pairs if a is not b)

    def undo(self, name: str) -> None:
        """End a loss or a partition."""
        self._nft(f"delete table bridge {name}\n")

    def traffic(self) -> dict[str, Traffic]:
        """What each host has received and sent so far, by its name; one look for all, at the bridge's ends of the links."""
        shown = json.loads(
            command(["ip", "-n", self._net.switch, "-j", "-s", "link", "show", "type", "veth"])
        )
        links = {link["ifname"].removeprefix("v-"): link["stats64"] for link in shown}
        return {name: Traffic(_payload(stats["tx"]), _payload(stats["rx"])) for name, stats in links.items()}

    def close(self) -> None:
        self._net.close()

    def _rule(self, matches: Iterable[str]) -> str:
        name = f"lab{next(self._rules)}"
        chain = f"add chain bridge {name} forward {{ type filter hook forward priority 0; }}\n"
        rules = "".join(f"add rule bridge {name} forward {match} counter drop\n" for match in matches)
        self._nft(f"add table bridge {name}\n{chain}{rules}")
        return name

    def _nft(self, text: str) -> None:
        command(["nsenter", f"--net=/run/netns/{self._net.switch}", "nft", "-f", "-"], text=text)


def _payload(stats: Mapping[str, int]) -> int:
    return stats["bytes"] - FRAME * stats["packets"]
