"""What is counted by the minute of a caller."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How a caller stands with one of its rates; the tighter one where the team and the key have one."""

    subject: str
    """`requests` or `images`."""
    per_minute: int
    remaining: int
    reset_s: float
    """Until all of it can be had again."""
