"""What a job's end leaves behind: its error as the client will see it, or its result with everything but the bytes."""

from collections.abc import Sequence
from typing import Final

from app.assets.records import Asset, Picture
from app.domain.errors import GatewayError, InvalidValue, UnsupportedParameter
from app.domain.failures import CLASS_OF, FailureClass, FailureKind
from app.domain.results import Usage
from app.jobs.errors import JobPoisoned
from app.jobs.lifecycle import OPEN_ATTEMPT, AttemptState, Ending
from app.jobs.records import Attempt, Job
from app.kit.json import Json, JsonObject
from app.routing.errors import (
    AllUpstreamsFailed,
    ModerationBlocked,
    UpstreamOutcomeUnknown,
    UpstreamUnavailable,
)

RETRY_AFTER_S: Final = 10.0
"""Advised after a failure that cost nothing: about the time in which a busy vendor recovers."""


def error_of(ending: Ending, attempts: Sequence[Attempt]) -> JsonObject:
    """The error of a job that ended without pictures, ready to be stored and rendered."""
    error = _error(ending, attempts)
    return {
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "type": error.type,
        "status": error.status,
        "should_retry": error.should_retry,
        "retry_after_s": error.retry_after_s,
    }


def _error(ending: Ending, attempts: Sequence[Attempt]) -> GatewayError:
    match ending:
        case Ending.FAULT:
            return _fault(attempts)
        case Ending.OUTCOME_UNKNOWN:
            asked = next(item.upstream for item in attempts if item.state in _MAY_BE_PAID)
            return UpstreamOutcomeUnknown(
                f"Upstream {asked!r} took the request and gave no usable answer, so it may have been paid for. "
                "It is not repeated by itself; a new request may be paid for again."
            )
        case Ending.ALL_FAILED:
            return _all_failed(attempts)
        case Ending.UNAVAILABLE:
            return UpstreamUnavailable(
                "No upstream can be asked for this model at the moment. Nothing was bought; try again later.",
                retry_after_s=RETRY_AFTER_S,
            )
        case Ending.NOT_STARTED:
            return UpstreamUnavailable(
                "The job's deadline came before any upstream could be asked. Nothing was bought; try again later.",
                retry_after_s=RETRY_AFTER_S,
            )
        case Ending.POISONED:
            return JobPoisoned(
                "The job was stopped because it ended every worker that took it (reason: poisoned)."
            )
        case Ending.PICTURES:
            raise ValueError("a job that ends with pictures has no error")


_MAY_BE_PAID: Final = frozenset({AttemptState.UNKNOWN, *OPEN_ATTEMPT})


def _fault(attempts: Sequence[Attempt]) -> GatewayError:
    blamed = next(item for item in attempts if item.failure and CLASS_OF[item.failure] is FailureClass.FINAL)
    if blamed.failure is FailureKind.REFUSED:
        return ModerationBlocked(
            f"The request was rejected by the safety system of upstream {blamed.upstream!r}. Change the prompt or the "
            "input pictures; repeating it will not help."
        )
    lacking = [item for item in attempts if item.failure is FailureKind.UNSUPPORTED and item.param]
    if lacking and not blamed.param:
        # Some vendors do not say what is wrong; those asked before them did.
        return UnsupportedParameter(
            f"Upstream {lacking[-1].upstream!r} does not support the parameter {lacking[-1].param!r}, and upstream "
            f"{blamed.upstream!r} rejected the request as invalid.",
            param=lacking[-1].param,
        )
    named = f" because of the parameter {blamed.param!r}" if blamed.param else ""
    return InvalidValue(
        f"Upstream {blamed.upstream!r} rejected the request as invalid{named}.", param=blamed.param
    )


def _all_failed(attempts: Sequence[Attempt]) -> GatewayError:
    kinds = [item.failure for item in attempts]
    params = [item.param for item in attempts if item.param]
    if params and all(kind is FailureKind.UNSUPPORTED for kind in kinds):
        return UnsupportedParameter(f"No upstream supports the parameter {params[-1]!r}.", param=params[-1])
    story = ", ".join(f"{item.upstream} ({item.failure})" for item in attempts if item.failure)
    return AllUpstreamsFailed(
        f"Every attempt failed and none was paid for: {story}. Try again later.", retry_after_s=RETRY_AFTER_S
    )


def result_of(job: Job, attempts: Sequence[Attempt], pictures: Sequence[Picture | Asset]) -> JsonObject:
    """The result of a job that has these pictures: their file ids (`n` at most), what they are, and the usage."""
    made = [item for item in attempts if item.state is AttemptState.SUCCEEDED]
    pictures = pictures[: job.n]
    usages = [item.usage for item in made if item.usage is not None]
    first = pictures[0]
    resolved = made[0].resolved or {}
    adjusted: list[Json] = [
        *job.request.adjusted,
        *(note for item in made for note in _notes(item)),
    ]
    if len(pictures) < job.n:
        adjusted.append(f"n: {len(pictures)} of {job.n} pictures could be made")
    return {
        "created": int(job.created_at.timestamp()),
        "files": [picture.file_id for picture in pictures],
        "size": f"{first.width_px}x{first.height_px}",
        "quality": resolved.get("quality") or job.request.quality,
        "background": resolved.get("background") or job.request.background,
        "output_format": first.format.value,
        "usage": usage_document(sum(usages, Usage())) if usages and len(usages) == len(made) else None,
        "adjusted": adjusted,
    }


def result_files(result: JsonObject) -> list[str]:
    """The file ids that a result lists."""
    files = result.get("files")
    return [str(file_id) for file_id in files] if isinstance(files, list) else []


def _notes(attempt: Attempt) -> list[Json]:
    notes = (attempt.resolved or {}).get("adjusted")
    return list(notes) if isinstance(notes, list) else []


def usage_document(usage: Usage) -> JsonObject:
    """Usage in OpenAI's form."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"text_tokens": usage.text_input, "image_tokens": usage.image_input},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"text_tokens": usage.text_output, "image_tokens": usage.image_output},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
