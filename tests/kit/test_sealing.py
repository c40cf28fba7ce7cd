"""What is sealed opens in its own place, under the secrets of this process, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kit.sealing import SealBroken, Sealer, place_of

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
PLACE = place_of("webhook_secrets", "whs_1", "sealed")


@given(secret=st.binary(max_size=200))
def test_what_was_sealed_opens_as_it_was(secret: bytes) -> None:
    assert Sealer((NEW,)).open(Sealer((NEW,)).seal(secret, PLACE), PLACE) == secret


def test_a_secret_cannot_be_seen_in_its_seal_and_never_looks_the_same() -> None:
    first, second = (Sealer((NEW,)).seal(b"a-very-secret-thing", PLACE) for _ in range(2))
    assert first != second
    assert b"a-very-secret-thing" not in first


def test_a_seal_opens_in_no_other_place() -> None:
    sealed = Sealer((NEW,)).seal(b"secret", PLACE)
    with pytest.raises(SealBroken, match="not what was sealed"):
        Sealer((NEW,)).open(sealed, place_of("webhook_secrets", "whs_2", "sealed"))


@pytest.mark.parametrize("place", range(24))
def test_a_changed_byte_breaks_the_seal(place: int) -> None:
    sealed = bytearray(Sealer((NEW,)).seal(b"secret", PLACE))
    sealed[place] ^= 1
    with pytest.raises(SealBroken):
        Sealer((NEW,)).open(bytes(sealed), PLACE)


@pytest.mark.parametrize("length", [0, 5, 6, 17, 18, 20])
def test_a_cut_off_seal_is_broken(length: int) -> None:
    with pytest.raises(SealBroken):
        Sealer((NEW,)).open(Sealer((NEW,)).seal(b"secret", PLACE)[:length], PLACE)


def test_an_older_secret_still_opens_and_the_newest_seals() -> None:
    old, both = Sealer((OLD,)), Sealer((NEW, OLD))
    sealed = old.seal(b"secret", PLACE)
    assert both.open(sealed, PLACE) == b"secret"
    assert not both.is_current(sealed)
    assert both.is_current(both.seal(b"secret", PLACE))
    with pytest.raises(SealBroken, match="no longer holds"):
        Sealer((OTHER,)).open(sealed, PLACE)


def test_without_a_secret_nothing_is_sealed() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Sealer(())
