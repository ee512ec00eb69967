"""Encodings: closed alphabet, round trips, injectivity."""

from hypothesis import given
from hypothesis import strategies as st

from gwctl.haproxy.encoding import (
    KEY_ALPHABET,
    VALUE_ALPHABET,
    decode,
    encode,
    encode_header_names,
    encode_headers,
    encode_varint,
)
from gwctl.haproxy.names import frontend_name
from gwctl.haproxy.state import Protocol, protocol_of, server_name

DNS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,5}[a-z0-9])?", fullmatch=True)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_encode_round_trips_within_the_alphabet_of_keys(text: str) -> None:
    assert decode(encode(text)) == text
    assert text == "" or KEY_ALPHABET.fullmatch(encode(text))


@given(st.integers(0, 1 << 40))
def test_varint_is_read_back_as_haproxy_reads_it(number: int) -> None:
    data = encode_varint(number)
    value = data[0]
    if value >= 240:
        shift = 4
        for byte in data[1:]:
            value += byte << shift
            shift += 7
    assert value == number


@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=300)), min_size=1))
def test_headers_stay_within_the_alphabet_of_values(headers: list[tuple[str, str]]) -> None:
    assert VALUE_ALPHABET.fullmatch(encode_headers(headers))
    assert VALUE_ALPHABET.fullmatch(encode_header_names(name for name, _ in headers))


def test_no_headers_are_no_text() -> None:
    assert encode_headers(()) == ""
    assert encode_header_names(()) == ""


@given(st.tuples(DNS, DNS, st.integers(1, 65535)), st.tuples(DNS, DNS, st.integers(1, 65535)))
def test_frontend_names_are_injective(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    assert (frontend_name(*one) == frontend_name(*other)) == (one == other)


SERVERS = st.tuples(st.ip_addresses().map(str), st.integers(1, 65535), st.sampled_from([None, "h2"]))


@given(SERVERS, SERVERS)
def test_server_names_are_injective(
    one: tuple[str, int, Protocol | None], other: tuple[str, int, Protocol | None]
) -> None:
    assert (server_name(*one) == server_name(*other)) == (one == other)
    assert protocol_of(server_name(*one)) == one[2]
