"""What the sandbox can be told: how slow to be, and when to fail in which way. See docs/sandbox.md."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

from app.kit.json import Json

LONGEST_DELAY_S: Final = 3600.0
"""No call lives longer, so a longer delay is a slip of the pen."""

_MAX_RULES: Final = 100
_DEFAULT_RETRY_AFTER_S: Final = 1.0


class SandboxOptionsInvalid(ValueError):
    """The `options` of a sandbox upstream cannot be used. The message names the place, the value and the fix."""


class SandboxFailure(StrEnum):
    """How the sandbox fails: what a vendor would do, in OpenAI's own form where there is one."""

    BUSY = "busy"
    """429 `rate_limit_exceeded` with `retry-after`."""
    DOWN = "down"
    """500 `server_error`."""
    OVERLOADED = "overloaded"
    """503 `server_is_overloaded`."""
    EDGE = "edge"
    """502 with an HTML page, as a proxy in front of a vendor answers."""
    TIMEOUT = "timeout"
    """No answer until the caller gives up."""
    RESET = "reset"
    """The connection breaks after the request was read."""
    MODERATION = "moderation"
    """400 `moderation_blocked`."""
    QUOTA = "quota"
    """429 `insufficient_quota`."""
    CREDENTIALS = "credentials"
    """401 `invalid_api_key`."""
    INVALID = "invalid"
    """400 `invalid_value`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRule:
    """One scripted failure and its condition: exactly one of `every`, `probability` and `prompt` is given."""

    kind: SandboxFailure
    every: int | None = None
    """On each k-th call of this process: 1 is every call, 3 the third, sixth, ninth."""
    probability: float | None = None
    """Of each call on its own, above 0 and up to 1; drawn from the seed."""
    prompt: str | None = None
    """On calls whose prompt holds this text."""
    retry_after_s: float = _DEFAULT_RETRY_AFTER_S
    """What `busy` sends as `retry-after`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """How the sandbox behaves. As it stands: at once, and without failures."""

    delay_s: tuple[float, float] = (0.0, 0.0)
    """Shortest and longest wait before an answer, whatever the answer is."""
    fail: tuple[FailureRule, ...] = ()
    """In order; the first that applies decides."""
    seed: int = 0
    """Changes the pictures, the delays and which calls a probability hits."""

    @classmethod
    def parse(cls, options: Mapping[str, Json]) -> "SandboxOptions":
        """Read an upstream's `options`.

        Raises:
            SandboxOptionsInvalid: an option is unknown, or has a value that cannot be meant.
        """
        _only("options", options, ("delay_s", "fail", "seed"))
        seed = options.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise SandboxOptionsInvalid(f"options.seed: {seed!r} is not a whole number.")
        return cls(
            delay_s=_delay(options.get("delay_s", 0)),
            fail=_rules(options.get("fail", [])),
            seed=seed,
        )

    def delay(self, call: int) -> float:
        """Seconds to wait on the `call`-th call, counted from 1."""
        shortest, longest = self.delay_s
        return shortest + (longest - shortest) * self._chance("delay", call)

    def failure(self, call: int, prompt: str) -> FailureRule | None:
        """The rule that the `call`-th call, counted from 1, fails by; None when it succeeds."""
        for place, rule in enumerate(self.fail):
            if rule.every is not None:
                applies = call % rule.every == 0
            elif rule.probability is not None:
                applies = self._chance(f"fail-{place}", call) < rule.probability
            else:
                applies = rule.prompt is not None and rule.prompt in prompt
            if applies:
                return rule
        return None

    def _chance(self, purpose: str, call: int) -> float:
        return Random(f"{self.seed}/{purpose}/{call}").random()


def _delay(value: Json) -> tuple[float, float]:
    ends = value if isinstance(value, list | tuple) else (value, value)
    numbers = [_number(end) for end in ends]
    if len(numbers) == 2:
        shortest, longest = numbers
        if shortest is not None and longest is not None and 0 <= shortest <= longest <= LONGEST_DELAY_S:
            return shortest, longest
    raise SandboxOptionsInvalid(
        f"options.delay_s: {value!r} is no delay. Write seconds from 0 to {LONGEST_DELAY_S:g}, such as 2.5, "
        "or the shortest and the longest, such as [1, 4]."
    )


def _rules(value: Json) -> tuple[FailureRule, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MAX_RULES:
        raise SandboxOptionsInvalid(
            f"options.fail: must be a list of up to {_MAX_RULES} rules, such as [{{kind: busy, every: 3}}]."
        )
    return tuple(_rule(f"options.fail[{place}]", rule) for place, rule in enumerate(value))


def _rule(place: str, rule: Json) -> FailureRule:
    if not isinstance(rule, Mapping):
        raise SandboxOptionsInvalid(
            f"{place}: {rule!r} is not a rule. Write one like {{kind: busy, every: 3}}."
        )
    _only(place, rule, ("kind", "every", "probability", "prompt", "retry_after_s"))
    conditions = [name for name in ("every", "probability", "prompt") if name in rule]
    if len(conditions) != 1:
        said = " and ".join(conditions) or "nothing"
        raise SandboxOptionsInvalid(
            f"{place}: says {said} about when to fail. Write exactly one of every, probability and prompt."
        )
    kind = _kind(place, rule.get("kind"))
    if "retry_after_s" in rule and kind is not SandboxFailure.BUSY:
        raise SandboxOptionsInvalid(
            f"{place}.retry_after_s: only busy says when to come back. Leave it out of {kind}."
        )
    return FailureRule(
        kind=kind,
        every=_every(place, rule["every"]) if "every" in rule else None,
        probability=_probability(place, rule["probability"]) if "probability" in rule else None,
        prompt=_prompt(place, rule["prompt"]) if "prompt" in rule else None,
        retry_after_s=_retry_after(place, rule.get("retry_after_s", _DEFAULT_RETRY_AFTER_S)),
    )


def _kind(place: str, value: Json) -> SandboxFailure:
    if isinstance(value, str) and value in {kind.value for kind in SandboxFailure}:
        return SandboxFailure(value)
    known = ", ".join(SandboxFailure)
    raise SandboxOptionsInvalid(f"{place}.kind: {value!r} is not a failure. Write one of: {known}.")


def _every(place: str, value: Json) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise SandboxOptionsInvalid(f"{place}.every: {value!r} must be a whole number from 1, such as 3.")


def _probability(place: str, value: Json) -> float:
    number = _number(value)
    if number is not None and 0 < number <= 1:
        return number
    raise SandboxOptionsInvalid(f"{place}.probability: {value!r} must be above 0 and up to 1, such as 0.1.")


def _prompt(place: str, value: Json) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise SandboxOptionsInvalid(
        f"{place}.prompt: {value!r} must be a text to look for in prompts, such as '#busy'."
    )


def _retry_after(place: str, value: Json) -> float:
    number = _number(value)
    if number is not None and 0 <= number <= LONGEST_DELAY_S:
        return number
    raise SandboxOptionsInvalid(
        f"{place}.retry_after_s: {value!r} must be seconds from 0 to {LONGEST_DELAY_S:g}."
    )


def _only(place: str, section: Mapping[str, Json], known: tuple[str, ...]) -> None:
    for name in section:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            fix = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
            raise SandboxOptionsInvalid(f"{place}.{name}: there is no such option. {fix}")


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
