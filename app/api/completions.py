"""A finished job as a chat completion: what clients of chat models expect, with pictures in it (upstreams.md 6).

`content` shows each picture by a signed link, for clients that read nothing else; `images` hold the pictures
themselves.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from app.api.errors import Problem, error_document
from app.api.rendering import Renderer
from app.api.streaming import Frame, checked_base64
from app.assets.records import Asset
from app.assets.storage import Storage
from app.jobs.service import JobView
from app.kit.json import Json, JsonObject
from app.kit.json_stream import StreamedString

DIALECT: Final = "chat"
"""Marks the jobs that came in as chat completions."""


async def completion(view: JobView, renderer: Renderer, storage: Storage) -> dict[str, object]:
    """OpenAI's ChatCompletion with OpenRouter's `message.images`: one choice for each picture.

    Raises:
        AssetMissing: a picture's bytes are gone.
        StorageUnavailable: storage does not answer.
    """
    choices = [
        {
            "index": place,
            "message": {
                "role": "assistant",
                "content": _shown(picture, renderer),
                "refusal": None,
                "images": [await _image(picture, storage)],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
        for place, picture in enumerate(view.pictures)
    ]
    document = {**_head(view, "chat.completion"), "choices": choices}
    usage = chat_usage((view.job.result or {}).get("usage"))
    if usage is not None:
        document["usage"] = usage
    adjusted = (view.job.result or {}).get("adjusted")
    return {**document, "adjusted": adjusted} if adjusted else document


class ChatEvents:
    """A finished job as chunks of a chat completion; a job that is not finished shows nothing."""

    end: bytes = b"data: [DONE]\n\n"

    def __init__(self, renderer: Renderer, storage: Storage, *, wants_usage: bool) -> None:
        """Join the parts.

        Args:
            renderer: writes links.
            storage: where pictures are streamed from.
            wants_usage: whether a last chunk tells the usage, as `stream_options` asks for.
        """
        self._renderer = renderer
        self._storage = storage
        self._wants_usage = wants_usage

    def partial(self, _view: JobView, _coarse: Asset) -> None:
        """Show nothing: chat completions have no form for a picture that is replaced by a better one."""
        return

    async def completed(self, view: JobView) -> Sequence[Frame]:
        """For each picture its role, its content, the picture and its end; then the usage, if that was wanted."""
        frames = [
            self._chunk(
                view, [{"index": place, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
            )
            for place, picture in enumerate(view.pictures)
            for delta, finish_reason in (
                ({"role": "assistant", "content": ""}, None),
                ({"content": _shown(picture, self._renderer)}, None),
                ({"images": [await _image(picture, self._storage)]}, None),
                ({}, "stop"),
            )
        ]
        if self._wants_usage:
            usage = chat_usage((view.job.result or {}).get("usage"))
            frames.append(self._chunk(view, [], usage=usage))
        return frames

    def failed(self, problem: Problem) -> Frame:
        """An event without a name, whose data makes OpenAI's SDKs raise."""
        return Frame(name=None, data=error_document(problem))

    @staticmethod
    def _chunk(view: JobView, choices: Sequence[object], **more: object) -> Frame:
        return Frame(
            name=None, data={**_head(view, "chat.completion.chunk"), "choices": list(choices), **more}
        )


def chat_usage(usage: Json) -> JsonObject | None:
    """A job's usage under chat completions' names; None when it is not known."""
    if not isinstance(usage, Mapping):
        return None
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": usage["input_tokens_details"],
        "completion_tokens_details": usage["output_tokens_details"],
    }


def _head(view: JobView, kind: str) -> dict[str, object]:
    job = view.job
    return {
        "id": f"chatcmpl-{job.id}",
        "object": kind,
        "created": int(job.created_at.timestamp()),
        "model": job.request.model,
    }


def _shown(picture: Asset, renderer: Renderer) -> str:
    return f"![image]({renderer.link(picture)})"


async def _image(picture: Asset, storage: Storage) -> dict[str, object]:
    encoded = await checked_base64(storage, picture)
    prefix = f"data:{picture.format.media_type};base64,".encode("ascii")

    async def data_url() -> AsyncIterator[bytes]:
        yield prefix
        async for chunk in encoded.open():
            yield chunk

    url = StreamedString(len(prefix) + encoded.length, data_url)
    return {"type": "image_url", "image_url": {"url": url}, "index": 0}
