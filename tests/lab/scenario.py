"""A scenario of the lab as values, read from TOML: hosts and links, image, arrival, faults, and what must hold at the end.

Always true here: a scenario that was read is sound: hosts exist, sizes and times are positive and bounded, and an unknown
key or kind is an error that names it. Rates are Mbit/s of the shaped link, times seconds after the first client starts.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

MAX_HOSTS = 100
MAX_SECONDS = 3600.0
UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
PATTERNS = ("at once", "ramp", "rolling")
FAULTS = ("kill", "stop", "start", "freeze", "slow", "loss", "part", "upstream-down", "upstream-slow")

T = TypeVar("T")


class ScenarioError(ValueError):
    """A scenario file is wrong; the message says where."""


@dataclass(frozen=True, slots=True)
class Link:
    """The shaped rates of one host, Mbit/s: what it can receive and send. 0 is unshaped."""

    down: float
    up: float


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """``layers`` in bytes, base first; or the ``services`` set (DESIGN.md section 6) at a ``scale``."""

    layers: tuple[int, ...] = ()
    services: bool = False
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """When clients start: all at once; evenly over ``over`` seconds; or ``rolling``, ``batch`` hosts every ``over``."""

    pattern: str = "at once"
    over: float = 0.0
    batch: int = 1

    def times(self, count: int) -> tuple[float, ...]:
        """When each of ``count`` clients starts, seconds after the first."""
        if self.pattern == "ramp":
            return tuple(self.over * n / max(1, count - 1) for n in range(count))
        if self.pattern == "rolling":
            return tuple(self.over * (n // self.batch) for n in range(count))
        return (0.0,) * count


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a time: ``kind`` to ``hosts``; undone after ``seconds`` (0: never).

    kill: SIGKILL (and a new start when undone); stop: SIGTERM (same); start: for hosts that do not run yet; freeze: SIGSTOP;
    slow: the link at ``rate``; loss: ``percent`` of the packets to these hosts dropped; part: these hosts cannot reach
    ``others`` ([] is all other agents); upstream-down: nothing reaches the registry; upstream-slow: its link at ``rate``.
    """

    at: float
    kind: str
    hosts: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    seconds: float = 0.0
    rate: float = 0.0
    percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Expect:
    """What must hold at the end; None asks nothing. ``ratio``: makespan / T*; ``failed``: pulls that may fail;
    ``agent_copies``: upstream copies without what clients fetched there because their own agent failed them."""

    copies: float | None = None
    agent_copies: float | None = None
    ratio: float | None = None
    cpu_per_gb: float | None = None
    rss_mib: float | None = None
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """The whole. ``warm``: hosts that pull before the clock starts. ``absent``: agents that a fault starts later."""

    name: str
    title: str
    hosts: int
    rate: float = 0.0
    links: Mapping[int, Link] = field(default_factory=dict)
    zones: int = 1
    registry_rate: float = 0.0
    image: ImageSpec = ImageSpec(layers=(1024**2,))
    arrival: Arrival = Arrival()
    warm: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    faults: tuple[Fault, ...] = ()
    expect: Expect = Expect()
    settings: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 300.0

    def link(self, host: int) -> Link:
        """The link of a host, numbered from 1."""
        return self.links.get(host, Link(self.rate, self.rate))

    def zone(self, host: int) -> str:
        """Its zone's label; "" where there is one zone only."""
        return f"z{(host - 1) % self.zones + 1}" if self.zones > 1 else ""


def load(path: Path) -> Scenario:
    """Read a scenario file; ScenarioError says what is wrong in it."""
    try:
        document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    try:
        return parse(document, path.stem)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from error


def parse(document: Mapping[str, Any], name: str) -> Scenario:
    """A scenario from a parsed TOML document."""
    rest = dict(document)
    hosts = dict(_table(rest.pop("hosts", {}), "hosts"))
    count = hosts.pop("count", 0)
    if not isinstance(count, int) or not 1 <= count <= MAX_HOSTS:
        raise ScenarioError(f"hosts.count must be 1..{MAX_HOSTS}, not {count!r}")
    links: dict[int, Link] = {}
    for entry in hosts.pop("unequal", []):
        link = Link(_number(entry, "down"), _number(entry, "up"))
        links.update(dict.fromkeys(_numbers(entry.get("numbers", []), count), link))
    registry = _table(rest.pop("registry", {}), "registry")
    rate = float(hosts.pop("rate", 0))
    scenario = Scenario(
        name=name,
        title=str(rest.pop("title", name)),
        hosts=count,
        rate=rate,
        links=links,
        zones=int(hosts.pop("zones", 1)),
        warm=_numbers(hosts.pop("warm", []), count),
        absent=_numbers(hosts.pop("absent", []), count),
        registry_rate=float(registry.get("rate", rate)),
        image=_image(_table(rest.pop("image", {}), "image")),
        arrival=_arrival(rest.pop("arrival", {})),
        faults=tuple(_fault(f, count) for f in rest.pop("faults", [])),
        expect=_known(Expect, rest.pop("expect", {}), "expect"),
        settings={str(k): str(v) for k, v in _table(rest.pop("settings", {}), "settings").items()},
        seconds=float(rest.pop("seconds", 300)),
    )
    for where, left in (("", rest), ("hosts.", hosts)):
        if left:
            raise ScenarioError(f"unknown key {where}{next(iter(left))}")
    if not 0 < scenario.seconds <= MAX_SECONDS:
        raise ScenarioError(f"seconds must be up to {MAX_SECONDS:.0f}, not {scenario.seconds}")
    return scenario


def size(text: str | int) -> int:
    """Bytes from "64MiB"."""
    if isinstance(text, int):
        return text
    for unit, factor in UNITS.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            return round(float(number) * factor)
    raise ScenarioError(f"a size is a number and one of {', '.join(UNITS)}, not {text!r}")


def _image(table: Mapping[str, Any]) -> ImageSpec:
    if table.get("services"):
        return ImageSpec(services=True, scale=float(table.get("scale", 1.0)))
    layers = tuple(size(layer) for layer in table.get("layers", []))
    if not layers:
        raise ScenarioError('image needs layers = ["64MiB", ...] or services = true')
    return ImageSpec(layers=layers)


def _arrival(table: Any) -> Arrival:
    arrival = _known(Arrival, table, "arrival")
    if arrival.pattern not in PATTERNS or arrival.over < 0 or arrival.batch < 1:
        raise ScenarioError(f"arrival: a pattern is one of {', '.join(PATTERNS)}; over >= 0, batch >= 1")
    return arrival


def _fault(table: Any, count: int) -> Fault:
    fault = _known(Fault, table, "faults")
    if fault.kind not in FAULTS:
        raise ScenarioError(f"faults: kind {fault.kind!r} is none of {', '.join(FAULTS)}")
    if fault.at < 0 or fault.seconds < 0:
        raise ScenarioError(f"faults: {fault.kind}: times are not negative")
    hosts, others = _numbers(fault.hosts, count), _numbers(fault.others, count)
    return dataclasses.replace(fault, hosts=hosts, others=others)


def _numbers(values: Any, count: int) -> tuple[int, ...]:
    numbers = tuple(values)
    for number in numbers:
        if not isinstance(number, int) or not 1 <= number <= count:
            raise ScenarioError(f"there is no host {number!r}: hosts are 1..{count}")
    return numbers


def _number(table: Mapping[str, Any], key: str) -> float:
    if not isinstance(table.get(key), int | float):
        raise ScenarioError(f"hosts.unequal needs {key}, Mbit/s")
    return float(table[key])


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ScenarioError(f"{where} must be a table")
    return value


def _known(kind: type[T], table: Any, where: str) -> T:
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # only dataclasses come here
    for key in _table(table, where):
        if key not in names:
            raise ScenarioError(f"unknown key {where}.{key}: known are {', '.join(sorted(names))}")
    try:
        return kind(**table)
    except TypeError as error:
        raise ScenarioError(f"{where}: {error}") from error
