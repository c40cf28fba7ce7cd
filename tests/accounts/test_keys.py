"""How API keys are written and read."""

import re

import pytest

from app.accounts.keys import derive_pepper, digest, hint_of, is_presentable, lookup_of, make_key


@pytest.mark.parametrize("is_admin", [False, True])
def test_a_new_key_names_its_own_row(is_admin: bool) -> None:
    made = make_key(is_admin=is_admin)
    assert lookup_of(made.text) == made.lookup
    assert is_presentable(made.text)


def test_a_key_tells_by_its_beginning_whose_it_is() -> None:
    assert re.fullmatch(r"dk_[0-9A-Za-z]{10}_[0-9A-Za-z]{38}", make_key(is_admin=False).text)
    assert re.fullmatch(r"dk_admin_[0-9A-Za-z]{10}_[0-9A-Za-z]{38}", make_key(is_admin=True).text)


def test_a_single_wrong_character_fails_the_check() -> None:
    text = make_key(is_admin=False).text
    for place in range(3, len(text)):
        if text[place] == "_":
            continue
        wrong = "a" if text[place] != "a" else "b"
        assert lookup_of(text[:place] + wrong + text[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", "dk_", "any text of the first start, 32 long", "sk-" + "a" * 48])
def test_other_texts_name_no_row(text: str) -> None:
    assert lookup_of(text) is None


@pytest.mark.parametrize(
    "text", ["", "short", "a" * 31, "a" * 513, "a" * 31 + " ", "ä" * 40, "a" * 40 + "\x00"]
)
def test_texts_that_no_header_carries_are_no_keys(text: str) -> None:
    assert not is_presentable(text)


def test_digests_depend_on_the_key_and_on_the_secret() -> None:
    one, other = derive_pepper(b"1" * 32), derive_pepper(b"2" * 32)
    assert len({digest("a", one), digest("b", one), digest("a", other)}) == 3


def test_a_hint_does_not_give_the_key_away() -> None:
    made = make_key(is_admin=True)
    assert made.text.startswith(hint_of(made.text))
    assert len(hint_of(made.text)) <= 12
