"""A signed link opens one file of one team until it expires, and no other."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.assets.links import LinkSigner

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
OLD, NEW = b"o" * 32, b"n" * 32
SIGNER = LinkSigner((NEW,), "https://pictures.example/base/")
LINK = SIGNER.sign("team_a", "file_1", NOW + timedelta(hours=1))


def query_of(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query, strict_parsing=True))


def test_a_link_is_absolute_and_opens_its_file() -> None:
    assert LINK.startswith("https://pictures.example/base/v1/files/file_1/content?exp=")
    assert list(query_of(LINK)) == ["exp", "kid", "sig"]
    assert len(query_of(LINK)["sig"]) == 43
    assert SIGNER.verify("file_1", query_of(LINK), "team_a", NOW)


def test_a_link_expires_on_the_second() -> None:
    end = NOW + timedelta(hours=1)

    assert SIGNER.verify("file_1", query_of(LINK), "team_a", end - timedelta(microseconds=1))
    assert not SIGNER.verify("file_1", query_of(LINK), "team_a", end)


def test_another_file_or_team_is_not_opened() -> None:
    assert not SIGNER.verify("file_2", query_of(LINK), "team_a", NOW)
    assert not SIGNER.verify("file_1", query_of(LINK), "team_b", NOW)


@given(st.sampled_from(["exp", "kid", "sig"]), st.text(max_size=50))
def test_no_other_value_of_a_parameter_is_accepted(name: str, value: str) -> None:
    query = query_of(LINK)
    changed = {**query, name: value}

    assert SIGNER.verify("file_1", changed, "team_a", NOW) == (changed == query)


@pytest.mark.parametrize("name", ["exp", "kid", "sig"])
def test_every_parameter_is_needed(name: str) -> None:
    query = query_of(LINK)
    del query[name]

    assert not SIGNER.verify("file_1", query, "team_a", NOW)


def test_an_expiry_cannot_be_moved() -> None:
    query = query_of(LINK)

    assert not SIGNER.verify("file_1", {**query, "exp": str(int(query["exp"]) + 1)}, "team_a", NOW)
    assert not SIGNER.verify("file_1", {**query, "exp": "0" + query["exp"]}, "team_a", NOW)


def test_names_that_run_into_each_other_are_not_confused() -> None:
    query = query_of(SIGNER.sign("team", "a_file", NOW + timedelta(hours=1)))

    assert not SIGNER.verify("file", query, "team\na_", NOW)
    assert not SIGNER.verify("\ud800", query, "team", NOW)


def test_links_of_an_older_secret_hold_until_it_is_removed() -> None:
    before = query_of(LinkSigner((OLD,), "https://x").sign("team_a", "file_1", NOW + timedelta(hours=1)))
    rotated = LinkSigner((NEW, OLD), "https://x")

    assert rotated.verify("file_1", before, "team_a", NOW)
    assert not SIGNER.verify("file_1", before, "team_a", NOW)
    after = query_of(rotated.sign("team_a", "file_1", NOW + timedelta(hours=1)))
    assert after["kid"] != before["kid"]
    assert SIGNER.verify("file_1", after, "team_a", NOW)


def test_a_secret_cannot_be_read_off_a_link() -> None:
    assert OLD.hex()[:12] not in LINK
    assert NEW.hex()[:12] not in LINK
    with pytest.raises(ValueError, match="at least one secret"):
        LinkSigner((), "https://x")
