"""A new user's first hour, as steps that are run on two machines and written down as docs/first-hour.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.e2e.docs.content import push_web_server
from tests.e2e.docs.machines import Machine
from tests.e2e.guard import wait_until
from tests.e2e.images import Pushed
from tests.e2e.lab import Lab
from tests.e2e.upstream import Served
from tests.unit.deploy.files import ROOT

PAGE = ROOT / "docs" / "first-hour.md"
KEY = "/etc/p2pdist/cluster.key"
CONFIG = """\
cat > /etc/p2pdist/config.toml <<'END'
[peer]
bootstrap = ["10.0.0.1:5051", "10.0.0.2:5051"]
cluster_key_file = "/etc/p2pdist/cluster.key"
END"""
CONTAINERD = """\
cat >> /etc/containerd/config.toml <<'END'
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
END"""
INSTALL = (
    "python3 -m venv /opt/p2pdist",
    "/opt/p2pdist/bin/pip install .",
    "ln -s /opt/p2pdist/bin/p2pdist /usr/local/bin/p2pdist",
    "install -d /etc/p2pdist",
)
PULL = "ctr images pull --hosts-dir /etc/containerd/certs.d docker.io/library/nginx"
SAVED = "curl -s http://127.0.0.1:5052/metrics | grep p2pdist_saved_bytes_total"


@dataclass(frozen=True, slots=True)
class Step:
    """A command on host ``on``. ``last``: how many lines of what it printed are shown; None: all."""

    on: int
    command: str
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """A command that goes on in a terminal of its own; the first lines of its log are shown."""

    on: int
    command: str
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Deed:
    """What is done without a command that could be shown; the text around it says it."""

    do: Callable[[Hour], None]


@dataclass(frozen=True, slots=True)
class Said:
    """A text; ``{copies}`` and the like are the figures of ``Hour.figures``."""

    text: str


@dataclass
class Hour:
    """One run: the machines, what each step printed, and what the registry sent meanwhile."""

    lab: Lab
    machines: Sequence[Machine]
    images: dict[str, Pushed] = field(default_factory=dict)
    printed: list[tuple[Step | Start, str]] = field(default_factory=list)
    since: dict[str, int] = field(default_factory=dict)
    served: Served = field(default_factory=lambda: Served(()))
    from_peers: Sequence[int] = ()

    def machine(self, number: int) -> Machine:
        return self.machines[number - 1]

    def begin(self) -> None:
        """Put the images into the registry, and count what it sends from here on."""
        self.lab.net.heal()
        self.lab.upstream.start()
        self.images = push_web_server(self.lab.images)
        self.since = self.lab.upstream.mark()

    def count(self) -> None:
        """What came from where up to now."""
        self.served = self.lab.upstream.served(self.since)
        self.from_peers = [
            int(machine.metrics().value("p2pdist_received_bytes_total", source="peer"))
            for machine in self.machines
        ]

    def copy_key(self) -> None:
        key = self.machine(1).sh(f"cat {KEY}")
        self.machine(2).write(KEY, key)
        self.machine(2).sh(f"chmod 0600 {KEY}")

    def install_on_the_second(self) -> None:
        """The same files, copied: to install a second time would only take as long again."""
        self.machine(2).copy("/opt/p2pdist", self.machine(1))
        for command in INSTALL[2:]:
            self.machine(2).sh(command)

    def restart_containerd(self) -> None:
        for machine in self.machines:
            machine.restart_containerd()

    def acquaint(self) -> None:
        """Until the agents know each other."""
        for machine in self.machines:
            wait_until(partial(_knows_another, machine), 30, f"{machine.name} to know the other host")

    def announce(self) -> None:
        """Until what the agents hold can be found: here, commands follow each other faster than by hand."""
        for machine in self.machines:
            wait_until(partial(_has_announced, machine), 30, f"{machine.name} to announce what it holds")

    def stop_agent(self) -> None:
        assert self.machine(2).stop() == 0

    def run(self, step: Step | Start) -> None:
        """Run it, and keep what it printed."""
        machine = self.machine(step.on)
        if isinstance(step, Start):
            machine.start(step.command)
            self.printed.append((step, "\n".join(machine.log().splitlines()[: step.lines])))
            return
        self.printed.append((step, plain(machine.sh(step.command))))


def _knows_another(machine: Machine) -> bool:
    return machine.metrics().value("p2pdist_peers") == 1


def _has_announced(machine: Machine) -> bool:
    read = machine.metrics()
    return read.value("p2pdist_dht_state", what="announced") >= read.value("p2pdist_store_blobs")


def both(command: str, last: int | None = None) -> list[Step]:
    return [Step(1, command, last), Step(2, command, last)]


STEPS: list[Step | Start | Deed | Said] = [
    Said("""\
<!-- This page is generated: python -m tests.first_hour --write -->

# The first hour

From nothing to savings on two hosts with containerd. This is a transcript: a script ran these commands on two hosts, each
a network namespace with a root of its own, with the containerd and `ctr` of Debian 12, and wrote down what they printed. An
end-to-end test runs the same commands again. The hosts had no internet: a local registry stood in for Docker Hub, with
made-up images named `nginx`, of 30 MB in three layers, and pip was given its packages in a directory. Long output is cut
to its last lines, after `...`.

## Install

On both hosts, as root, in a checkout:"""),
    *(Step(1, command, last=0) for command in INSTALL),
    Deed(Hour.install_on_the_second),
    Said("""\
On host-2 the same (the script copied the first one's installation). Then a key, which makes hosts a cluster. Make it on
one, and copy the file to the others, mode 0600:"""),
    Step(1, f"(umask 077; p2pdist cluster key > {KEY})"),
    Deed(Hour.copy_key),
    Said("The configuration is the same file on both hosts: where the others are, and the key."),
    *both(CONFIG),
    Said("What would not work is told before anything runs:"),
    Step(1, "p2pdist check"),
    Said("""\
## Run

In a terminal of its own on each host ([as a service](deployment.md#systemd), later):"""),
    Start(1, "p2pdist agent", lines=2),
    Start(2, "p2pdist agent", lines=1),
    Deed(Hour.acquaint),
    Said("The two have found each other:"),
    Step(1, "p2pdist peers"),
    Said("""\
## Point containerd at it

`--dry-run` shows what would be written; without it:"""),
    Step(1, "p2pdist setup containerd"),
    Said("""\
So the two lines are added, on both hosts, and containerd is restarted (`systemctl restart containerd`); its containers go
on running."""),
    Step(2, "p2pdist setup containerd", last=0),
    *both(CONTAINERD),
    Deed(Hour.restart_containerd),
    Said("""\
## Pull

Kubernetes and everything else that pulls through containerd's CRI plugin needs no more. `ctr` reads no configuration, so
it is given the directory. On the first host the image comes from the registry:"""),
    Step(1, f"{PULL}:1.27", last=2),
    Step(1, "p2pdist status"),
    Said("On the second host the same pull:"),
    Deed(Hour.announce),
    Step(2, f"{PULL}:1.27", last=2),
    Step(2, "p2pdist status"),
    Said("""\
All of it came from the first host. Prometheus would read the same:"""),
    Step(2, SAVED),
    Said("""\
## Update

Version 1.28 has the first two layers of 1.27, and one of its own. The second host pulls it first; then the first host has
it from there:"""),
    Step(2, f"{PULL}:1.28", last=2),
    Deed(Hour.announce),
    Step(1, f"{PULL}:1.28", last=2),
    Step(1, "p2pdist diff nginx:1.27 nginx:1.28"),
    Step(1, "p2pdist df -v"),
    Step(1, "p2pdist history nginx:1.28"),
    Deed(Hour.count),
    Said("""\
What the registry's own log says that it sent, for two versions on two hosts:

{registry}

## Take it away

The agent on the second host is stopped, with Ctrl-C. A pull then goes to the registry, as it did before:"""),
    Deed(Hour.stop_agent),
    Step(2, f"{PULL}:1.26", last=2),
    Said("What it stored is there when it starts again:"),
    Start(2, "p2pdist agent", lines=1),
    Step(2, "p2pdist images"),
    Said("And containerd's files as they were before:"),
    Step(2, "p2pdist setup containerd --remove", last=3),
    Said("""\
Next: [as a service, in Compose or in Kubernetes](deployment.md), [other runtimes](runtimes.md),
[what to watch](monitoring.md), [every key of the configuration](configuration.md)."""),
]


def play(hour: Hour) -> None:
    """Run everything, in order."""
    hour.begin()
    for step in STEPS:
        if isinstance(step, Deed):
            step.do(hour)
        elif isinstance(step, Step | Start):
            hour.run(step)


def commands() -> list[tuple[int, str]]:
    """(host, command) in order, as the page shows them."""
    return [(step.on, step.command) for step in STEPS if isinstance(step, Step | Start)]


def registry_line(served: Served, images: Sequence[Pushed]) -> str:
    """How much the registry sent, beside what the distinct blobs of these images are."""
    blobs = {digest: len(data) for image in images for digest, data in image.image.blobs.items()}  # type: ignore[arg-type]
    once = sum(blobs.values())
    sent = served.blob_bytes
    return (
        f"    {len(blobs)} blobs of {once:,} bytes in all; {sent:,} bytes of them sent: "
        f"{sent / once:.2f} copies, for {len(images)} images on 2 hosts each"
    )


def plain(text: str) -> str:
    """Without colours, carriage returns and blanks at the ends of lines."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return "\n".join(line.rpartition("\r")[2].rstrip() for line in text.rstrip().splitlines())


def render(hour: Hour) -> str:
    """The page."""
    parts: list[str] = []
    printed = iter(hour.printed)
    figures = {"registry": registry_line(hour.served, [hour.images["1.27"], hour.images["1.28"]])}
    block: list[str] = []
    for step in [*STEPS, Said("")]:
        if isinstance(step, Step | Start):
            block += shown(*next(printed))
        elif isinstance(step, Said):
            if block:
                parts.append("```console\n" + "\n".join(block) + "\n```")
                block = []
            parts.append(step.text.format(**figures) if "{registry}" in step.text else step.text)
    return "\n\n".join(parts).rstrip() + "\n"


def shown(step: Step | Start, output: str) -> list[str]:
    lines = output.splitlines()
    if isinstance(step, Step) and step.last is not None and len(lines) > step.last:
        lines = ["...", *lines[len(lines) - step.last :]]
    return [f"host-{step.on}# {step.command}", *lines]


def shown_commands(page: str) -> list[tuple[int, str]]:
    """(host, command) in order, as a page's transcripts have them; a here-document belongs to its command."""
    found: list[tuple[int, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        pattern = r"^host-(\d)# ([^\n]*<<'END'\n.*?^END$|[^\n]*)$"
        found += [(int(on), line) for on, line in re.findall(pattern, block, re.MULTILINE | re.DOTALL)]
    return found
