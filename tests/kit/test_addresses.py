"""Which addresses may be reached."""

import pytest

from app.kit.addresses import (
    can_be_reached_from_outside,
    client_network,
    is_named,
    is_reachable,
    parse_networks,
)


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:1.1.1.1"],
)
def test_public_addresses_are_reachable(address: str) -> None:
    assert is_reachable(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.19.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "2620:4f:8000::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%lo",
        "fec0::1",
        "ff02::1",
    ],
)
def test_special_addresses_are_not(address: str) -> None:
    assert not is_reachable(address)


def test_named_networks_are_reachable_whatever_they_are() -> None:
    networks = parse_networks(["10.0.0.0/8", " 127.0.0.1 ", "fd00::/8"])

    assert is_reachable("10.9.9.9", networks)
    assert is_reachable("127.0.0.1", networks)
    assert is_reachable("::ffff:10.0.0.1", networks)
    assert is_reachable("fd00::1", networks)
    assert not is_reachable("127.0.0.2", networks)
    assert not is_reachable("192.168.0.1", networks)
    assert is_reachable("1.1.1.1", networks)
    assert not is_named("1.1.1.1", networks)


@pytest.mark.parametrize("host", ["pictures.example.com", "1.1.1.1", "2606:4700::1", "localhost.example.com"])
def test_a_name_or_a_public_address_can_be_reached_from_outside(host: str) -> None:
    assert can_be_reached_from_outside(host)


@pytest.mark.parametrize(
    "host", ["", "localhost", "LOCALHOST.", "darkroom.localhost", "127.0.0.1", "10.0.0.5", "::1", "0.0.0.0"]
)
def test_this_machine_and_private_addresses_cannot(host: str) -> None:
    assert not can_be_reached_from_outside(host)


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "example.com"])
def test_a_text_that_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_networks([text])


@pytest.mark.parametrize(
    "address,network",
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix:", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_client_is_an_ipv4_address_or_the_64_bits_of_a_customer(address: str | None, network: str) -> None:
    assert client_network(address) == network
