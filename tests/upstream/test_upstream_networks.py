"""An owner's upstream has an address that is a public host's, or that the operator named."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.upstream import Networks

NONE = Networks()

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2001:db7:ffff::1",
    "2001:db9::1",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "3ffe:ffff::1",
    "3fff:1000::1",
    "::ffff:8.8.8.8",
]

REFUSED = {
    "unspecified": ["0.0.0.0", "0.1.2.3", "0.255.255.255", "::", "::ffff:0.0.0.0"],
    "loopback": ["127.0.0.1", "127.1.2.3", "127.255.255.255", "::1", "::ffff:127.0.0.1"],
    "private": [
        *("10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.1"),
        *("fc00::1", "fd12:3456::1", "fdff:ffff::1", "::ffff:10.0.0.1", "::ffff:c0a8:1"),
    ],
    "link-local": ["169.254.0.0", "169.254.169.254", "169.254.170.2", "fe80::1", "febf::1"],
    "cloud's own": [
        *("100.100.100.200", "168.63.129.16", "192.0.0.192", "::ffff:168.63.129.16"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe"),
        *("fd00:42::42", "fd00:100::100:200", "fd00:a9fe:a9fe::1"),
    ],
    "carrier": ["100.64.0.0", "100.127.255.255"],
    "protocol": ["192.0.0.0", "192.0.0.9", "192.0.0.170", "2001:1::1", "2001:20::1", "2001:1ff::"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.255", "2001:db8::1", "3fff:fff::1"],
    "benchmarks": ["198.18.0.0", "198.19.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff00::", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255"],
    "site-local": ["fec0::1", "feff::1"],
    "translated": [
        *("64:ff9b::808:808", "64:ff9b::10.0.0.1", "64:ff9b:1::808:808", "64:ff9b:1:ffff::1"),
        *("::ffff:0:8.8.8.8", "::ffff:0:7f00:1"),
    ],
    "tunnel": ["2002:7f00:1::", "2002:808:808::1", "2001::1", "2001:0:808:808::f7f7:f7f7"],
    "not a public": [
        *(
            "::2",
            "::10.0.0.1",
            "::8.8.8.8",
            "100::1",
            "64:ff9c::1",
            "1fff::1",
            "4000::1",
            "5f00::1",
        ),
        *("8000::1", "fbff::1", "fe00::1", "192.31.196.1", "192.52.193.1", "192.88.99.1"),
        *("192.175.48.1", "2620:4f:8000::1"),
    ],
    "with a zone": ["fe80::1%eth0", "::1%1", "2606:4700:4700::1111%eth0", "::ffff:8.8.8.8%eth0"],
    "not an address": [
        *("", "localhost", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.01", "1.1.1.1."),
        *("[::1]", "1.1.1.1:80", "1.1.1.1/32", " 1.1.1.1", "\u0661.1.1.1", "::ffff:0x7f.1"),
    ],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes(address: str) -> None:
    assert NONE.refusal(address) is None


@pytest.mark.parametrize(
    ("why", "address"), [(why, each) for why, addresses in REFUSED.items() for each in addresses]
)
def test_what_is_not_plainly_public_is_refused_by_its_rule(why: str, address: str) -> None:
    assert why in (NONE.refusal(address) or "passes")


IPV4 = st.integers(0, 2**32 - 1).map(IPv4Address)
# Half of them in places where something private is.
LIKELY = st.sampled_from(
    ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "100.100.100.200", "8.8.8.8"]
).map(IPv4Address)
ANY_IPV4 = IPV4 | LIKELY
IPV6 = st.integers(0, 2**128 - 1).map(IPv6Address)
UNICAST_IPV6 = st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address)


@given(ANY_IPV4 | IPV6 | UNICAST_IPV6)
@example(IPv6Address("fec0::1"))
def test_nothing_passes_that_python_does_not_take_for_global(
    address: IPv4Address | IPv6Address,
) -> None:
    if NONE.refusal(str(address)) is None:
        real = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        judged = real or address
        assert judged.is_global
        assert not judged.is_multicast
        assert not judged.is_reserved
        assert not judged.is_link_local


@given(ANY_IPV4)
def test_an_ipv4_mapped_address_is_the_ipv4_address(inner: IPv4Address) -> None:
    mapped = str(IPv6Address((0xFFFF << 32) | int(inner)))
    assert NONE.refusal(mapped) == NONE.refusal(str(inner))
    allowing = Networks.of(["10.0.0.0/8", "127.0.0.1/32"])
    assert allowing.refusal(mapped) == allowing.refusal(str(inner))
    assert Networks.of(["::/0"]).refusal(mapped) == NONE.refusal(str(inner))


def nat64(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("64:ff9b::")) | int(inner))


def local_nat64(inner: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("64:ff9b:1:2::")) | int(inner))


def translated(inner: IPv4Address) -> IPv6Address:
    return IPv6Address((0xFFFF << 48) | int(inner))


def six_to_four(inner: IPv4Address) -> IPv6Address:
    return IPv6Address((0x2002 << 112) | (int(inner) << 80) | 0x1234)


def teredo_server(inner: IPv4Address) -> IPv6Address:
    client = 0xFFFF_FFFF ^ int(IPv4Address("8.8.8.8"))
    return IPv6Address((0x2001_0000 << 96) | (int(inner) << 64) | client)


def teredo_client(inner: IPv4Address) -> IPv6Address:
    server = int(IPv4Address("8.8.8.8")) << 64
    return IPv6Address((0x2001_0000 << 96) | server | (0xFFFF_FFFF ^ int(inner)))


EMBEDDINGS = [
    (nat64, "64:ff9b::/96"),
    (local_nat64, "64:ff9b:1:2::/96"),
    (translated, "::ffff:0:0:0/96"),
    (six_to_four, "2002::/16"),
    (teredo_server, "2001::/32"),
    (teredo_client, "2001::/32"),
]


@given(ANY_IPV4, st.sampled_from(EMBEDDINGS))
def test_an_embedded_ipv4_address_is_refused_however_wide_the_operator_allows(
    inner: IPv4Address, embedding: tuple[object, str]
) -> None:
    embed, _ = embedding
    address = str(embed(inner))  # type: ignore[operator]  # of EMBEDDINGS
    for networks in (NONE, Networks.of(["::/0", "0.0.0.0/0"])):
        assert networks.refusal(address) is not None


@given(ANY_IPV4, st.sampled_from(EMBEDDINGS))
def test_an_allowed_translator_or_tunnel_leads_only_where_one_may_go_without_it(
    inner: IPv4Address, embedding: tuple[object, str]
) -> None:
    embed, network = embedding
    address = str(embed(inner))  # type: ignore[operator]  # of EMBEDDINGS
    for allowed in ([], ["10.0.0.0/8"]):
        without = Networks.of(allowed).refusal(str(inner))
        assert (Networks.of([*allowed, network]).refusal(address) is None) == (without is None)


@pytest.mark.parametrize("network", ["64:ff9b:1::/48", "64:ff9b:1::/64"])
def test_a_local_translator_is_open_only_by_a_prefix_that_tells_where_the_address_is(
    network: str,
) -> None:
    # A translator of /48 reads 10.0.0.1 out of this, one of /96 8.8.8.8.
    assert Networks.of([network]).refusal("64:ff9b:1:a00:0:100:808:808") is not None


@pytest.mark.parametrize(
    ("allowed", "address", "passes"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("10.0.0.0/8", "172.16.0.1", False),
        ("10.1.0.0/16", "10.2.0.0", False),
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.0/8", "::ffff:127.0.0.1", True),
        ("127.0.0.0/8", "::1", False),
        ("127.0.0.0/8", "0.0.0.0", False),
        ("::1/128", "::1", True),
        ("::1/128", "127.0.0.1", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "fd00:ec2::254", False),
        ("fc00::/7", "fd20:ce::254", False),
        ("fd00:ec2::/32", "fd00:ec2::254", True),
        ("fd00:ec2::254/128", "fd00:ec2::254", True),
        ("fd00:ec2::254/128", "fd00:ec2::23", False),
        ("100.64.0.0/10", "100.64.1.1", True),
        ("100.64.0.0/10", "100.100.100.200", False),
        ("100.100.100.200/32", "100.100.100.200", True),
        ("0.0.0.0/0", "192.168.0.1", True),
        ("0.0.0.0/0", "169.254.169.254", False),
        ("0.0.0.0/0", "168.63.129.16", False),
        ("169.254.0.0/16", "169.254.169.254", True),
        ("169.254.169.0/24", "169.254.169.254", True),
        ("168.0.0.0/5", "169.254.169.254", False),
        ("169.254.0.0/15", "169.254.169.254", False),
        ("64:ff9b::/96", "64:ff9b::808:808", True),
        ("64:ff9b::/95", "64:ff9b::808:808", False),
        ("fe80::/10", "fe80::1", True),
        ("fe80::/10", "fe80::1%eth0", False),
        ("::/0", "fd12::1", True),
        ("::/0", "fe80::1", False),
        ("::/0", "10.0.0.1", False),
    ],
)
def test_the_operator_opens_what_is_named_and_no_more(
    allowed: str, address: str, passes: bool
) -> None:
    assert (Networks.of([allowed]).refusal(address) is None) == passes


@pytest.mark.parametrize(
    ("address", "passes"),
    [("10.0.0.1", True), ("::ffff:10.0.0.1", True), ("8.8.8.8", False), ("127.0.0.1", False)],
)
def test_only_allowed_networks_may_be_asked_for(address: str, passes: bool) -> None:
    networks = Networks.of(["10.0.0.0/8"]).only_allowed()
    assert (networks.refusal(address) is None) == passes
    assert networks != Networks.of(["10.0.0.0/8"])


def test_public_networks_that_are_allowed_are_so_among_only_the_allowed() -> None:
    networks = Networks.of(["8.8.8.0/24", "64:ff9b::/96"]).only_allowed()
    assert networks.refusal("8.8.8.8") is None
    assert networks.refusal("64:ff9b::8.8.8.8") is None
    assert networks.refusal("64:ff9b::8.8.4.4") == "not an allowed address"


@given(ANY_IPV4 | UNICAST_IPV6, ANY_IPV4 | IPV6, st.integers(0, 128))
def test_what_is_allowed_is_open_beside_what_is_public_and_nothing_else(
    address: IPv4Address | IPv6Address, base: IPv4Address | IPv6Address, length: int
) -> None:
    network = ip_network((int(base), min(length, base.max_prefixlen)), strict=False)
    passes = Networks((network,)).refusal(str(address)) is None
    if NONE.refusal(str(address)) is None:
        assert passes
    elif passes:
        assert address in network
