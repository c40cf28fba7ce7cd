"""When a server says to come back: the two headers, read without a clock."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `retry-after-ms` or `retry-after` asks for; None when neither says anything usable.

    Header names are in lower case. A date is measured against the answer's own `date` header, so that the clock of
    the server is compared with itself. The value may be absurdly long: a cap is the business of whoever waits.

    Source: upstreams.md 1.1 and 1.12; RFC 9110, 10.2.3.
    """
    milliseconds = _duration(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _duration(text)
    return seconds if seconds is not None else _until(text, headers.get("date", ""))


def _duration(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until(then: str, now: str) -> float | None:
    moments = [_moment(text) for text in (then, now)]
    if moments[0] is None or moments[1] is None:
        return None
    return max(0.0, (moments[0] - moments[1]).total_seconds())


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
