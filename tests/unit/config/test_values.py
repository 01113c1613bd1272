"""How each kind of value is written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.config import addresses, schema, values
from p2pdist.config.model import ListenAddress
from p2pdist.config.schema import Key, Section

ALL_KEYS = [(section, key) for section in (*schema.SECTIONS, schema.REGISTRY) for key in section.keys]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
NEARLY = st.text(alphabet='0123456789.:[]smhdwkKMGiBbt/"-_ahostdn', max_size=24)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (512, 512),
        ("512", 512),
        ("512B", 512),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("512MB", 512_000_000),
        ("50GiB", 50 * 2**30),
        ("50 gib", 50 * 2**30),
        ("1.5TiB", 3 * 2**39),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "50 apples", "-1", -1, "50G", "1e9", True, None, "9PB9", float("nan"), float("inf"), 2**61]
)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        (0, 0),
        ("100MiB/s", 100 * 2**20),
        ("100MiB", 100 * 2**20),
        ("800Mbit/s", 100_000_000),
        ("1Gbit/s", 125_000_000),
    ],
)
def test_rates(text: object, rate: int) -> None:
    assert values.parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (60, 60),
        (1.5, 1.5),
        ("60s", 60),
        ("7d", 604800),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("500ms", 0.5),
        ("0s", 0),
        ("2w", 1209600),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "60", "s", "1y", "h1", "-1s", "1h30", -5, float("nan"), [], "1.s"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError):
        values.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5050", ListenAddress("127.0.0.1", 5050)),
        ("[::]:5051", ListenAddress("::", 5051)),
        ("[::1]:0", ListenAddress("::1", 0)),
        (":5051", ListenAddress("", 5051)),
        ("localhost:5050", ListenAddress("127.0.0.1", 5050)),
    ],
)
def test_addresses_to_listen_at(text: str, address: ListenAddress) -> None:
    assert addresses.parse_listen(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5050",
        "127.0.0.1",
        "::1:5050",
        "[::1:5050",
        "host.example:80",
        "1.2.3:80",
        "127.0.0.1:65536",
        "127.0.0.1:x",
        "127.0.0.1:",
        "127.0.0.1:²",
        5050,
    ],
)
def test_what_is_no_address_to_listen_at(text: object) -> None:
    with pytest.raises(ValueError):
        addresses.parse_listen(text)


@pytest.mark.parametrize(
    "entry", ["10.0.0.1:5051", "[2001:db8::1]:5051", "host-1:5051", "dns:agents.example.internal:5051"]
)
def test_bootstrap_entries(entry: str) -> None:
    assert addresses.parse_bootstrap([entry]) == (entry,)
    assert addresses.parse_bootstrap(f"{entry}, {entry},") == (entry, entry)


@pytest.mark.parametrize(
    "entry",
    [
        "10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.256:5051",
        "host name:5051",
        "http://host:5051",
        "dns:",
        "2001:db8::1:5051",
        ":5051",
    ],
)
def test_what_is_no_bootstrap_entry(entry: str) -> None:
    with pytest.raises(ValueError, match="holds"):
        addresses.parse_bootstrap([entry])


@pytest.mark.parametrize("text", ["0.0.0.0:5051", "[::]:5051", ":5051", "not a host"])
def test_an_advertised_address_must_lead_somewhere(text: str) -> None:
    with pytest.raises(ValueError):
        addresses.parse_advertise(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", ""),
        ("https://r.example", "https://r.example"),
        ("http://10.0.0.1:5000/", "http://10.0.0.1:5000"),
        ("https://[::1]:5000", "https://[::1]:5000"),
    ],
)
def test_urls(text: str, url: str) -> None:
    assert addresses.parse_url(text) == url


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("", ""),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("http://[::1]:4318/", "http://[::1]:4318"),
        ("https://collector.example/otlp/", "https://collector.example/otlp"),
    ],
)
def test_endpoints(text: str, endpoint: str) -> None:
    assert addresses.parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:4318",
        "grpc://127.0.0.1:4317",
        "http://",
        "http:///v1",
        "http://c.example:0",
        "http://user:hunter2@c.example/otlp",
        "http://c.example/?token=hunter2",
        "http://c.example/a b",
        4318,
    ],
)
def test_what_is_no_endpoint(text: object) -> None:
    with pytest.raises(ValueError) as raised:
        addresses.parse_endpoint(text)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "r.example:5000",
        "ftp://r.example",
        "https://",
        "https://r.example/v2",
        "https://r.example?x=1",
        "https://[::1",
        "https://r.example:",
    ],
)
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ValueError):
        addresses.parse_url(text)


def test_credentials_in_a_url_are_refused_without_being_repeated() -> None:
    with pytest.raises(ValueError, match="credentials") as caught:
        addresses.parse_url("https://user:hunter2@r.example")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key"), ALL_KEYS, ids=[f"{section.name}.{key.name}" for section, key in ALL_KEYS]
)
def test_the_example_and_the_default_of_every_key_can_be_read(section: Section, key: Key) -> None:
    assert key.kind.parse(tomllib.loads(f"x = {key.example}")["x"]) is not None
    if (default := section.default(key)) not in {"", None}:
        assert key.kind.parse(tomllib.loads(f"x = {key.kind.show(default)}")["x"]) == default


@given(st.sampled_from([key for _, key in ALL_KEYS]), ANYTHING | NEARLY)
def test_a_kind_gives_a_value_or_a_value_error_whatever_it_is_given(key: Key, given_value: object) -> None:
    try:
        first = key.kind.parse(given_value)
    except ValueError:
        return
    assert key.kind.show(first)


@given(st.integers(0, values.MAX_BYTES))
def test_a_shown_size_reads_as_itself(size: int) -> None:
    assert values.parse_size(values.show_size(size).strip('"')) == size


@given(st.integers(0, 10**8))
def test_a_shown_duration_of_whole_seconds_reads_as_itself(seconds: int) -> None:
    assert values.parse_duration(f"{seconds}s") == seconds
    if seconds % 60 == 0:
        assert values.parse_duration(values.show_duration(seconds).strip('"')) == seconds
