"""How a caller stands with its rates, in the headers that OpenAI's clients read."""

from collections.abc import Iterable

from app.domain.rates import Rate


def rate_headers(rates: Iterable[Rate]) -> dict[str, str]:
    """`x-ratelimit-limit-…`, `-remaining-…` and `-reset-…` for each rate that holds.

    Source: https://platform.openai.com/docs/guides/rate-limits, read 2026-11; resets are Go durations such as `6m0s`.
    """
    headers = {}
    for rate in rates:
        headers[f"x-ratelimit-limit-{rate.subject}"] = str(rate.per_minute)
        headers[f"x-ratelimit-remaining-{rate.subject}"] = str(rate.remaining)
        headers[f"x-ratelimit-reset-{rate.subject}"] = go_duration(rate.reset_s)
    return headers


def go_duration(seconds: float) -> str:
    """Write seconds as Go does, to the millisecond: `17ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    millis = round(max(seconds, 0.0) * 1000)
    if 0 < millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
