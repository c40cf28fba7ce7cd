"""`POST /v1/chat/completions` for image models: the last user message is the prompt, its pictures are what to edit.

A convenience: no vendor of these models speaks it (upstreams.md 6). Every other message is context that an image model
does not have.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.answers import Answers
from app.api.authentication import caller_of
from app.api.calls import fingerprint_of, read_options
from app.api.completions import DIALECT
from app.api.forms import FormLimits
from app.api.intake import Intake, Source, canonical, filed, linked, read_picture_json
from app.api.parameters import Fields
from app.api.retirement import announce
from app.api.schemas import (
    BEARER,
    CALL_PARAMETERS,
    ERRORS,
    EVENTS,
    AcceptedJob,
    ChatCompletion,
    ChatRequest,
    schema_of,
)
from app.assets.inputs import Inputs
from app.catalog.current import CurrentCatalog
from app.catalog.sizes import AUTO, check_size
from app.domain.errors import InvalidValue, MissingParameter, UnknownParameter, UnsupportedParameter
from app.domain.pictures import Size
from app.domain.requests import ImageRequest, Operation
from app.jobs.admission import known_model
from app.jobs.service import JobService
from app.kit.json import Json

_PATH: Final = "/v1/chat/completions"
_ROLES: Final = ("developer", "system", "user", "assistant", "tool", "function")
_WITHOUT_EFFECT: Final = (
    "frequency_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_tokens",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "seed",
    "stop",
    "store",
    "temperature",
    "top_p",
    "verbosity",
)
"""How text is thought up, sampled, cut or kept. SDKs and frameworks send these whatever the model; no picture depends
on them."""
_ASKING_NOTHING: Final[Mapping[str, tuple[Json, ...]]] = {
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logprobs": (False,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}
"""What a chat model could be asked for, with the values that ask an image model for nothing."""
_SIZES: Final = {
    "1:1": Size(1024, 1024),
    "2:3": Size(832, 1248),
    "3:2": Size(1248, 832),
    "3:4": Size(864, 1184),
    "4:3": Size(1184, 864),
    "4:5": Size(896, 1152),
    "5:4": Size(1152, 896),
    "9:16": Size(768, 1344),
    "16:9": Size(1344, 768),
    "21:9": Size(1536, 672),
}
"""Aspect ratios at 1K. Source: OpenRouter's image generation guide, read 2026-11."""
_SCALES: Final = {"1K": 1, "2K": 2, "4K": 4}
_DOCUMENTATION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": schema_of(ChatRequest)}},
    },
    "parameters": CALL_PARAMETERS,
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the last user message asks for."""

    prompt: str
    images: tuple[Source, ...]


def router(
    jobs: JobService, answers: Answers, inputs: Inputs, limits: FormLimits, catalog: CurrentCatalog
) -> APIRouter:
    """Build the endpoint."""
    routes = APIRouter(tags=["chat"], dependencies=[BEARER])

    @routes.post(
        _PATH,
        summary="Make pictures from a conversation's last message",
        openapi_extra=_DOCUMENTATION,
        responses={
            200: {"model": ChatCompletion, "content": EVENTS, "description": "The pictures."},
            202: {"model": AcceptedJob, "description": "The job, when the call is asynchronous."},
            **ERRORS,
        },
    )
    async def complete(request: Request) -> Response:
        """Make pictures, and answer as a chat model would."""
        caller = caller_of(request)
        with inputs.workspace() as folder:
            document = await read_picture_json(request, folder, limits)
            # Digests of pictures are worth a thread.
            digests = await asyncio.to_thread(canonical, document)
            asked = await asyncio.to_thread(_last_user_message, document.pop("messages", None), limits)
            fields = Fields(document)
            options = read_options(request, fields)
            wants_stream = fields.boolean("stream") or False
            wants_usage = _wants_usage(fields)
            wanted = _read(fields, asked, catalog)
            announce(request, catalog.get().model(wanted.model))
            fingerprint = fingerprint_of("POST", _PATH, dict(digests) if isinstance(digests, Mapping) else {})
            async with aclosing(Intake(inputs, caller.team_id, folder)) as intake:
                images, _ = await intake.take(asked.images, None)
                submission = options.submission(caller, replace(wanted, images=images), fingerprint)
                submitted = await intake.submit(jobs, replace(submission, dialect=DIALECT))
        if wants_stream:
            return answers.chat_stream(submitted, options, wants_usage=wants_usage)
        return answers.to_call(submitted, options)

    return routes


def _read(fields: Fields, asked: _Asked, catalog: CurrentCatalog) -> ImageRequest:
    for name in _WITHOUT_EFFECT:
        fields.drop(name)
    _drop_what_asks_nothing(fields)
    _check_modalities(fields.items("modalities"))
    model = known_model(catalog.get(), fields.required_text("model"))
    size = fields.text("size")
    image_config = fields.mapping("image_config")
    if image_config is not None:
        if size is not None:
            message = "Invalid 'image_config': 'size' is given as well. Send one of them."
            raise InvalidValue(message, param="image_config")
        size = _configured_size(image_config)
        try:
            check_size(size, model.capabilities.sizes)
        except InvalidValue as exc:
            message = f"Invalid 'image_config': it stands for {size}. {exc.message}"
            raise InvalidValue(message, param="image_config") from exc
    wanted = ImageRequest(
        operation=Operation.EDIT if asked.images else Operation.GENERATION,
        model=model.name,
        prompt=asked.prompt,
        n=1 if (n := fields.integer("n")) is None else n,
        size=size,
        quality=fields.text("quality"),
        background=fields.text("background"),
        output_format=fields.text("output_format"),
        output_compression=fields.integer("output_compression"),
        moderation=fields.text("moderation"),
        input_fidelity=fields.text("input_fidelity"),
        user=fields.text("user"),
        safety_identifier=fields.text("safety_identifier"),
    )
    unknown = next(iter(fields.rest()), None)
    if unknown is not None:
        raise UnknownParameter(
            f"Unknown parameter: '{unknown}'. An image model cannot honour it; leave it out.", param=unknown
        )
    return wanted


def _drop_what_asks_nothing(fields: Fields) -> None:
    given = fields.rest()
    for name, harmless in _ASKING_NOTHING.items():
        if name not in given:
            continue
        if given[name] not in harmless or isinstance(given[name], bool) != isinstance(harmless[0], bool):
            values = " or ".join(json.dumps(value) for value in harmless)
            message = (
                f"Unsupported parameter: an image model can honour '{name}' only as {values}. Leave it out."
            )
            raise UnsupportedParameter(message, param=name)
        fields.drop(name)


def _check_modalities(given: Sequence[Json] | None) -> None:
    if given is None:
        return
    unknown = [item for item in given if item not in ("image", "text")]
    if unknown or "image" not in given:
        message = "Invalid 'modalities': an image model makes 'image', beside which 'text' may stand."
        raise InvalidValue(message, param="modalities")


def _wants_usage(fields: Fields) -> bool:
    options = Fields(fields.mapping("stream_options") or {})
    wants_usage = options.boolean("include_usage") or False
    options.drop("include_obfuscation")
    unknown = next(iter(options.rest()), None)
    if unknown is not None:
        raise UnknownParameter(f"Unknown parameter: 'stream_options.{unknown}'.", param="stream_options")
    return wants_usage


def _configured_size(image_config: Mapping[str, Json]) -> str:
    """The size that `image_config` stands for, `auto` when it says nothing.

    Raises:
        InvalidValue: it names something that is not in the table.
        UnknownParameter: it has other members than the two.
    """
    config = Fields(image_config)
    ratio = config.word("aspect_ratio", tuple(_SIZES))
    scale = config.word("image_size", tuple(_SCALES))
    unknown = next(iter(config.rest()), None)
    if unknown is not None:
        raise UnknownParameter(f"Unknown parameter: 'image_config.{unknown}'.", param="image_config")
    if ratio is None and scale is None:
        return AUTO
    size, factor = _SIZES[ratio or "1:1"], _SCALES[scale or "1K"]
    return str(Size(size.width_px * factor, size.height_px * factor))


def _last_user_message(messages: object, limits: FormLimits) -> _Asked:
    """Read what is to be drawn. Reads pictures for their digests, so not for the event loop.

    Raises:
        MissingParameter: there is no user message, or no text in it.
        InvalidValue: a message has no form that a chat model would understand.
    """
    if messages is None:
        raise MissingParameter("Missing required parameter: 'messages'.", param="messages")
    if not isinstance(messages, list):
        raise InvalidValue("Invalid type for 'messages': expected an array of messages.", param="messages")
    last: tuple[int, object] | None = None
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            roles = ", ".join(repr(role) for role in _ROLES)
            raise InvalidValue(
                f"Invalid 'messages[{place}]': expected an object whose 'role' is one of {roles}.",
                param=f"messages[{place}]",
            )
        if message["role"] == "user":
            last = (place, message.get("content"))
    if last is None:
        raise MissingParameter("Missing required parameter: a message of the role 'user'.", param="messages")
    return _asked(*last, limits)


def _asked(place: int, content: object, limits: FormLimits) -> _Asked:
    param = f"messages[{place}].content"
    if isinstance(content, str):
        return _Asked(_prompt(content), ())
    if not isinstance(content, list):
        raise InvalidValue(
            f"Invalid type for '{param}': expected a string or an array of parts.", param=param
        )
    texts: list[str] = []
    images: list[Source] = []
    for number, part in enumerate(content):
        where = f"{param}[{number}]"
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image_url", "image_url": {"url": url}}:
                images.append(linked(url, f"{where}.image_url.url"))
            case {"type": "file", "file": {"file_id": str(file_id)}} if file_id:
                images.append(filed(file_id, f"{where}.file.file_id"))
            case {"type": "file", "file": {"file_data": data}}:
                images.append(linked(data, f"{where}.file.file_data"))
            case _:
                message = (
                    f"Invalid '{where}': expected a part of the type 'text', 'image_url' with a 'url', or 'file' "
                    "with a 'file_id' or 'file_data'."
                )
                raise InvalidValue(message, param=where)
    most = limits.files - 1
    if len(images) > most:
        message = f"Too many images: at most {most} can be edited together, but got {len(images)}."
        raise InvalidValue(message, param=param)
    return _Asked(_prompt("\n".join(texts)), tuple(images))


def _prompt(text: str) -> str:
    """The text of the message, which an image model cannot do without."""
    if not text.strip():
        message = "Missing required parameter: the last message of the role 'user' has no text to draw from."
        raise MissingParameter(message, param="messages")
    return text
