"""A host's files in a directory, and the commands on them."""

from __future__ import annotations

from pathlib import Path

from p2pdist.cli.main import run

MIRROR = "http://127.0.0.1:5050"


class Host:
    """The files of a host's runtimes in a directory, and the commands on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.etc = root / "etc"
        self.certs = self.etc / "containerd" / "certs.d"
        self.toml = self.etc / "containerd" / "config.toml"
        self.json = self.etc / "docker" / "daemon.json"
        self.conf_d = self.etc / "containers" / "registries.conf.d"
        self.config = root / "p2pdist.toml"
        self.config.write_text("")
        self.etc.mkdir()
        self.toml.parent.mkdir()
        self.toml.write_text("version = 2\n")

    def argv(self, runtime: str, *words: str) -> list[str]:
        places = {
            "containerd": ["--certs-dir", str(self.certs), "--containerd-config", str(self.toml)],
            "docker": ["--daemon-json", str(self.json)],
            "podman": ["--conf-dir", str(self.conf_d)],
        }
        return ["setup", runtime, "--config", str(self.config), *places[runtime], *words]

    def setup(self, runtime: str, *words: str) -> int:
        return run(self.argv(runtime, *words))

    def hosts(self, registry: str) -> Path:
        return self.certs / registry / "hosts.toml"
