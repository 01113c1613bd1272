"""The drop-in for Podman and its kin, given what their other files say."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.cli.setup.mirrors import MirroredRegistry, Mirrors, default_upstream
from p2pdist.cli.setup.registries_conf import DropIn, drop_in, merge_files, read_tables, says
from p2pdist.errors import InvalidInputError

# A busy machine is no reason to fail.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
AT = "127.0.0.1:5050"


def mirrors(*names: str, **urls: str) -> Mirrors:
    found = [MirroredRegistry(name, default_upstream(name)) for name in names]
    return Mirrors(AT, (*found, *(MirroredRegistry(name, url) for name, url in urls.items())))


def at(**urls: str) -> Mirrors:
    """Registries by name, each with its url."""
    return mirrors(**urls)


def tables(made: DropIn) -> list[dict[str, Any]]:
    assert made.content is not None
    parsed = tomllib.loads(made.content.decode())
    assert set(parsed) == {"registry"}
    return list(parsed["registry"])


def with_others(names: Mirrors, text: str, later: str = "") -> DropIn:
    main, after = read_tables("/etc/main.conf", text.encode()), read_tables("/etc/z.conf", later.encode())
    return drop_in(names, merge_files([main, after]), after)


def test_a_table_per_registry_with_the_mirror_first() -> None:
    made = drop_in(mirrors("docker.io", "ghcr.io"), [], [])
    assert tables(made) == [
        {"prefix": name, "location": name, "mirror": [{"location": f"{AT}/{name}", "insecure": True}]}
        for name in ("docker.io", "ghcr.io")
    ]
    assert made.remarks == ()


def test_plain_http_upstream_can_be_fallen_back_to() -> None:
    (table,) = tables(drop_in(at(**{"r.example.com": "http://10.0.0.2:5000"}), [], []))
    assert (table["location"], table["insecure"]) == ("10.0.0.2:5000", True)


def test_an_upstream_by_ipv6_address_is_fallen_back_to_by_name() -> None:
    (table,) = tables(drop_in(at(**{"r.example.com": "https://[fd00::1]:5000"}), [], []))
    assert table["location"] == "r.example.com"


def test_a_port_goes_by_the_name_without_one_of_the_same_upstream() -> None:
    url = "http://r.example.com:5000"
    made = drop_in(at(**{"r.example.com": url, "r.example.com:5000": url}), [], [])
    (table,) = tables(made)
    assert table["prefix"] == "r.example.com:5000"
    assert table["mirror"][0]["location"] == f"{AT}/r.example.com"
    assert made.remarks == ()


def test_any_name_of_the_same_upstream_will_do() -> None:
    url = "https://registry:5000"
    (table,) = tables(drop_in(at(**{"registry:5000": url, "registry.internal": url}), [], []))
    assert table["mirror"][0]["location"] == f"{AT}/registry.internal"


@pytest.mark.parametrize("name", ["r.example.com:5000", "registry:5000", "registry", "[::1]:5000"])
def test_a_name_that_a_path_cannot_hold_is_left_out_with_the_lines_that_mend_it(name: str) -> None:
    made = drop_in(mirrors("docker.io", name), [], [])
    assert [table["prefix"] for table in tables(made)] == ["docker.io"]
    (remark,) = made.remarks
    (mended,) = tomllib.loads(remark.partition("\n")[2])["registries"].items()
    assert mended[1] == {"url": f"https://{name}"}
    again = drop_in(at(**{name: f"https://{name}", mended[0]: f"https://{name}"}), [], [])
    assert [table["prefix"] for table in tables(again)] == [name]


def test_another_upstream_is_no_stand_in() -> None:
    made = drop_in(mirrors("r.example.com", "r.example.com:5000"), [], [])
    assert [table["prefix"] for table in tables(made)] == ["r.example.com"]
    assert len(made.remarks) == 1


def test_what_others_say_of_a_registry_is_carried_over() -> None:
    made = with_others(
        mirrors("r.example.com"),
        '[[registry]]\nprefix = "r.example.com"\nlocation = "inner.example.com"\ninsecure = true\n'
        "mirror-by-digest-only = true\n"
        '[[registry.mirror]]\nlocation = "m.example.com"\n'
        '[[registry.mirror]]\nlocation = "n.example.com"\ninsecure = true\n',
    )
    assert tables(made) == [
        {
            "prefix": "r.example.com",
            "location": "inner.example.com",
            "insecure": True,
            "mirror-by-digest-only": True,
            "mirror": [
                {"location": f"{AT}/r.example.com", "insecure": True},
                {"location": "m.example.com"},
                {"location": "n.example.com", "insecure": True},
            ],
        }
    ]
    assert "/etc/main.conf" in made.remarks[0]


def test_how_a_mirror_is_used_is_carried_over() -> None:
    made = with_others(
        mirrors("r.example.com"),
        '[[registry]]\nlocation = "r.example.com"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "digest-only"\n',
    )
    assert tables(made)[0]["mirror"][1] == {"location": "m", "pull-from-mirror": "digest-only"}


def test_a_wildcards_settings_are_carried_over_to_each_name() -> None:
    made = with_others(mirrors("r.example.com"), '[[registry]]\nprefix = "*.example.com"\ninsecure = true\n')
    assert tables(made)[0]["location"] == "r.example.com"
    assert tables(made)[0]["insecure"] is True


def test_the_nearest_table_counts() -> None:
    made = with_others(
        mirrors("reg.example.com"),
        '[[registry]]\nprefix = "*.example.com"\nblocked = true\n'
        '[[registry]]\nprefix = "reg.example.com"\nlocation = "x.test"\n',
    )
    assert tables(made)[0]["location"] == "x.test"


def test_a_blocked_registry_stays_blocked() -> None:
    made = with_others(mirrors("r.example.com"), '[[registry]]\nlocation = "r.example.com"\nblocked = true\n')
    assert made.content is None
    assert "is blocked in /etc/main.conf" in made.remarks[0]


def test_one_that_points_here_already_is_left() -> None:
    by_hand = f'[[registry]]\nlocation = "ghcr.io"\n[[registry.mirror]]\nlocation = "{AT}/ghcr.io"\ninsecure = true\n'
    made = with_others(mirrors("ghcr.io"), by_hand)
    assert made.content is None
    assert "already" in made.remarks[0]
    not_first = by_hand.replace(
        "[[registry.mirror]]", '[[registry.mirror]]\nlocation = "m"\n[[registry.mirror]]'
    )
    assert [m["location"] for m in tables(with_others(mirrors("ghcr.io"), not_first))[0]["mirror"]] == [
        f"{AT}/ghcr.io",
        "m",
    ]


def test_a_longer_prefix_goes_past_the_agent_and_is_told() -> None:
    made = with_others(
        mirrors("docker.io"), '[[registry]]\nprefix = "docker.io/library"\nlocation = "m.test/hub"\n'
    )
    assert [table["prefix"] for table in tables(made)] == ["docker.io"]
    assert "docker.io/library" in made.remarks[0]
    assert "past the agent" in made.remarks[0]


def test_a_file_that_is_read_later_is_told() -> None:
    made = with_others(mirrors("ghcr.io", "quay.io"), "", '[[registry]]\nlocation = "ghcr.io"\n')
    assert any("/etc/z.conf is read after p2pdist.conf" in remark for remark in made.remarks)
    assert not any("quay.io" in remark for remark in made.remarks)


def test_two_tables_that_the_tools_would_refuse_together() -> None:
    both = at(**{"a.example.com": "https://up.test", "b.example.com": "https://up.test"})
    with pytest.raises(InvalidInputError, match=r"a\.example\.com and b\.example\.com"):
        with_others(both, '[[registry]]\nprefix = "a.example.com"\nlocation = "up.test"\ninsecure = true\n')


def test_the_first_of_two_tables_in_one_file_counts_and_the_later_of_two_files() -> None:
    first, second = '[[registry]]\nlocation = "a"\ninsecure = true\n', '[[registry]]\nlocation = "a"\n'
    assert [table.endpoint.insecure for table in read_tables("f", (first + second).encode())] == [True]
    merged = merge_files([read_tables("f", first.encode()), read_tables("g", second.encode())])
    assert [table.endpoint.insecure for table in merged] == [False]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("registry = 1", "not a list of tables"),
        ("registry = [1]", "not a list of tables"),
        ("[[registry]]\nblocked = true", "neither prefix nor location"),
        ('[[registry]]\nlocation = "a"\ninsecure = "yes"', "insecure is 'yes'"),
        ("[[registry]]\nlocation = 1", "location is '1'"),
        ('[[registry]]\nlocation = "a"\nmirror = 1', "mirrors of a"),
        ("[registries.search]\nregistries = []", "old form"),
        ("x = ", "not valid TOML"),
        ("a = " + "[" * 10_000, "nested too deeply"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_it(text: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"^/f.*{why}"):
        read_tables("/f", text.encode())


def test_whether_someone_elses_file_says_the_same() -> None:
    wanted = drop_in(mirrors("docker.io", "ghcr.io"), [], []).content
    assert wanted is not None
    shuffled = (
        b"# mine\n"
        + b"[[registry]]".join([b"", *reversed(wanted.split(b"[[registry]]")[1:])])
        + b'[[registry]]\nlocation = "x"\n'
    )
    assert says(shuffled, wanted)
    assert not says(wanted.replace(b"ghcr", b"gcr"), wanted)
    assert not says(b"x = ", wanted)


NAMES = st.sampled_from(["docker.io", "ghcr.io", "r.example.com", "r.example.com:5000", "registry:5000"])
TABLES = st.fixed_dictionaries(
    {"location": NAMES},
    optional={"insecure": st.booleans(), "blocked": st.booleans(), "mirror": st.lists(NAMES, max_size=2)},
)


@calm
@given(st.lists(NAMES, min_size=1, unique=True), st.lists(TABLES, max_size=3))
def test_what_was_written_is_left_when_seen_again(names: list[str], others: list[dict[str, Any]]) -> None:
    lines = []
    for other in others:
        lines += ["[[registry]]", f'location = "{other["location"]}"']
        lines += [f"{key} = {str(other[key]).lower()}" for key in ("insecure", "blocked") if key in other]
        lines += [
            line
            for each in other.get("mirror", [])
            for line in ("[[registry.mirror]]", f'location = "{each}"')
        ]
    made = with_others(mirrors(*names), "\n".join(lines))
    if made.content is None:
        return
    written = [name for name in names if f'prefix = "{name}"' in made.content.decode()]
    # As if it were someone else's file: nothing is left to be written.
    again = drop_in(mirrors(*written), read_tables("ours", made.content), [])
    assert again.content is None
    assert says(made.content, made.content)
