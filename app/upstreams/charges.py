"""What a vendor says it charged, read exactly from whatever it wrote the amount as."""

from decimal import Decimal, InvalidOperation

from app.upstreams.contract import ReplyJson


def read_usd(value: ReplyJson) -> Decimal | None:
    """Read an amount in US dollars, a number or its text; None when it is no amount that can have been charged."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        # By way of its text a float keeps the digits that the vendor wrote.
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None
