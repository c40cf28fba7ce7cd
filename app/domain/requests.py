"""What a client asked for, in one shape whatever dialect it arrived in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.domain.pictures import PictureFormat
from app.kit.json import Json


class Operation(StrEnum):
    """What is to be done with the prompt."""

    GENERATION = "image.generation"
    """Make pictures from the prompt alone."""
    EDIT = "image.edit"
    """Make pictures from the prompt and input pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPicture:
    """A picture that the client handed in, already inspected and in storage."""

    file_id: str
    format: PictureFormat
    width_px: int
    height_px: int
    size_bytes: int
    has_alpha: bool = False
    """Whether it has an alpha channel, as a mask must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """One request for `n` pictures. None means that the client did not say; nothing is filled in for it."""

    operation: Operation = Operation.GENERATION
    model: str
    """The public name, aliases already resolved."""
    prompt: str
    n: int = 1
    size: str | None = None
    """`auto` or `WIDTHxHEIGHT`."""
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    output_compression: int | None = None
    """0-100, jpeg and webp only."""
    moderation: str | None = None
    input_fidelity: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    stream: bool = False
    partial_images: int | None = None
    response_format: str | None = None
    """How the client wants the pictures handed over: `b64_json` (also None) or `url`. No upstream is told."""
    images: tuple[InputPicture, ...] = ()
    """Inputs of an edit, in the client's order."""
    mask: InputPicture | None = None
    adjusted: tuple[str, ...] = ()
    """What the edge changed of the client's words, to be listed in the reply; no upstream is told."""
    extra: Mapping[str, Json] = field(default_factory=dict)
    """Parameters that the catalog does not know, passed on to upstreams that speak OpenAI's format."""
