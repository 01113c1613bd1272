"""Which secrets an agent knows of, and that none of them is left in what it tells, however it was written."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from urllib.parse import quote

import pytest

from p2pdist.agent.admin_token import make_admin_token
from p2pdist.agent.redaction import Redactor, secrets_of
from p2pdist.config.load import load_config
from p2pdist.telemetry.logs import TextFormatter
from p2pdist.wire.keys import ClusterKey

KEY = ClusterKey(bytes(range(32)))


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_of_a_secret_that_begins_with_another_nothing_is_left() -> None:
    for order in (["hunter2", "hunter2-and-more"], ["hunter2-and-more", "hunter2"]):
        assert Redactor(order).without("a hunter2-and-more b hunter2 c") == "a *** b *** c"


@pytest.mark.parametrize("secret", ['qu"ote\\and', "späße", "per%cent/&=+ x", "tab\there"])
def test_every_way_of_writing_it(secret: str) -> None:
    record = logging.LogRecord("p2pdist.x", logging.INFO, "", 0, "said %s", (secret,), None)
    record.fields = {"word": f"so {secret}"}
    written = {
        "plain": f"<{secret}>",
        "logged": TextFormatter().format(record),
        "json": json.dumps({"inside": secret}),
        "url": f"http://host/?q={quote(secret, safe='')}",
        "encoded": f"X-Auth: {base64_of(secret)}",
        f"name {secret}": [secret, {"deep": [secret]}, 5, None],
    }
    found = Redactor([secret]).without(written)
    assert found["plain"] == "<***>"
    assert found["name ***"] == ["***", {"deep": ["***"]}, 5, None]
    left = json.dumps(found, ensure_ascii=False)
    for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), base64_of(secret)):
        assert form not in left
    assert found["logged"].endswith('said *** word="so ***"')


def test_no_secret_takes_nothing_out() -> None:
    assert Redactor(["", ""]).without("all of it") == "all of it"


def test_what_an_agent_knows(tmp_path: Path) -> None:
    docker = tmp_path / "docker.json"
    auths = {
        "gcr.io": {"auth": base64_of("user:from-docker")},
        "ghcr.io": {"auth": base64_of("user:"), "identitytoken": "from-docker-as-token"},
    }
    docker.write_text(json.dumps({"auths": auths}))
    file = tmp_path / "config.toml"
    file.write_text(
        f'[agent]\ndata_dir = "{tmp_path}"\ndocker_config = "{docker}"\n'
        '[registries."quay.io"]\nusername = "puller"\npassword = "from-the-toml"\n'
    )
    token = make_admin_token(tmp_path)
    environ = {
        "HTTPS_PROXY": "http://user:from%2Dthe-proxy@10.0.0.1:3128",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20from-otlp,x-scope=tenant",
        "SOME_API_TOKEN": "from-a-variable",
        "P2PDIST_PEER_CLUSTER_KEY_FILE": "/etc/p2pdist/cluster.key",
        "PATH": "/usr/bin",
        "WITH_TOKEN": "true",
        "ODD": "http://[::1@",
    }
    secrets = secrets_of(load_config(file, {}, {}), KEY, environ)
    known = [
        *(KEY.text(), KEY.raw.hex(), token, "from-the-toml", base64_of("puller:from-the-toml")),
        *("from-docker", "from-docker-as-token", base64_of("user:from-docker")),
        *("from-the-proxy", "from%2Dthe-proxy", "Bearer from-otlp", "Bearer%20from-otlp", "from-a-variable"),
    ]
    assert Redactor(secrets).without(known) == ["***"] * len(known)
    kept = "true /etc/p2pdist/cluster.key /usr/bin http://[::1@ puller user"
    assert Redactor(secrets).without(kept) == kept


def test_files_that_cannot_be_read_are_no_secret_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "docker.json").write_text("{" * 10_000)
    file = tmp_path / "config.toml"
    file.write_text(
        f'[agent]\ndata_dir = "{tmp_path}"\ndocker_config = "{tmp_path}/docker.json"\n',
    )
    assert secrets_of(load_config(file, {}, {}), None, {}) == []
