from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import (
    Reference,
    Repository,
    looks_like_host,
    parse_registry,
    parse_tag,
    parse_tag_or_digest,
)

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("registry.example.test:5000/a/b__c/d-e.f:v1", "registry.example.test:5000/a/b__c/d-e.f:v1"),
        ("GHCR.io/a/b", "ghcr.io/a/b:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}"),
    ],
)
def test_names_as_docker_reads_them(text: str, canonical: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert Reference.parse(canonical) == reference


def test_the_digest_decides() -> None:
    assert Reference.parse(f"nginx:1@{DIGEST}").target == DIGEST
    assert Reference.parse("nginx:1").target == "1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "nginx:",
        "nginx@",
        "nginx@sha256:abc",
        "NGINX",
        "a//b",
        "/a",
        "a/",
        "a..b/c_",
        "a/../b",
        "a:b:c",
        "a b",
        "a\n",
        "a:x\n",
        "host.test:99999/app",
        "host.test:0/app",
        "host.test:/app",
        "-host.test/app",
        "a" * 300,
        "a" * 2000,
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Reference.parse(text)


@given(st.text(alphabet="ab.:/@-_[]A0\n", max_size=40))
def test_what_parses_reads_back(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidInputError:
        return
    assert Reference.parse(str(reference)) == reference
    assert ".." not in reference.repository.path
    assert "//" not in reference.repository.path


def test_hosts_and_paths_are_told_apart() -> None:
    assert all(
        map(looks_like_host, ("docker.io", "a.b", "host:5000", "localhost", "127.0.0.1:1", "[::1]:5000"))
    )
    assert not any(map(looks_like_host, ("library", "nginx", "", "..", "a:b:c", "a_b.c", "host:99999")))


def test_registries() -> None:
    assert parse_registry("registry-1.docker.io") == "docker.io"
    assert parse_registry("no host", strict=False) is None
    with pytest.raises(InvalidInputError):
        parse_registry("no host")
    with pytest.raises(InvalidInputError):
        Repository.of("docker.io", "UPPER")


def test_tags_and_digests() -> None:
    assert parse_tag("a" * 128) == "a" * 128
    assert parse_tag_or_digest("1.0") == "1.0"
    assert parse_tag_or_digest(str(DIGEST)) == DIGEST
    for wrong in ("", "a" * 129, ".a", "a/b", "a\n"):
        with pytest.raises(InvalidInputError):
            parse_tag(wrong)
