"""Checks a request against what its model can do, before anything is bought.

The order follows upstreams.md 1.15, so that of two faults a client is told the one OpenAI would name. Whether some
route can serve a valid request is routing's question.
"""

from typing import Final

from app.catalog.entries import Model
from app.catalog.errors import UnusableMask, UnusableSetting
from app.catalog.sizes import check_size, enumerate_values
from app.domain.errors import InvalidValue, MissingParameter, UnsupportedParameter
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, Operation

DEFAULT_FORMAT: Final = PictureFormat.PNG.value
"""What a request without `output_format` gets."""


def validate(request: ImageRequest, model: Model, *, max_prompt_chars: int | None = None) -> None:
    """Check every parameter that the model's capabilities speak of.

    `max_prompt_chars` is the operator's bound; the model's own counts where it is lower.

    Raises:
        MissingParameter: no prompt, or an edit without a picture.
        InvalidValue: a value that the model cannot honour; `UnusableSetting` where OpenAI blames the setting.
        UnsupportedParameter: the model does not take this parameter at all.
        UnusableMask: the mask does not fit the first picture.
    """
    capabilities = model.capabilities
    own = capabilities.max_prompt_chars
    _check_prompt(request, own if max_prompt_chars is None else min(own, max_prompt_chars))
    _check_operation(request, model)
    if request.size is not None:
        check_size(request.size, capabilities.sizes)
    _check_word(request.quality, capabilities.qualities, "quality", model)
    _check_word(request.output_format, capabilities.formats, "output_format", model)
    _check_background(request, model)
    _check_compression(request, model)
    _check_range(request.n, 1, capabilities.max_n, "n")
    _check_input_fidelity(request, model)
    _check_word(request.moderation, capabilities.moderations, "moderation", model)
    _check_partial_images(request, model)
    _check_mask(request, model)


def _check_prompt(request: ImageRequest, most: int) -> None:
    if not request.prompt.strip():
        raise MissingParameter("Missing required parameter: 'prompt'.", param="prompt")
    length = len(request.prompt)
    if length > most:
        message = f"Invalid 'prompt': string too long. Expected at most {most} characters, but got {length}."
        raise InvalidValue(message, param="prompt")


def _check_operation(request: ImageRequest, model: Model) -> None:
    if request.operation is not Operation.EDIT:
        return
    if not model.capabilities.edits:
        raise InvalidValue(f"The model '{model.name}' does not edit pictures.", param="model")
    count, most = len(request.images), model.capabilities.max_input_images
    if count == 0:
        raise MissingParameter("Missing required parameter: 'image'.", param="image")
    if count > most:
        raise InvalidValue(
            f"Invalid 'image': expected at most {most} images, but got {count}.", param="image"
        )


def _check_word(value: str | None, known: tuple[str, ...], param: str, model: Model) -> None:
    if value is None or value in known:
        return
    if not known:
        raise _unsupported(param, model)
    message = f"Invalid value: {value!r}. Supported values are: {enumerate_values(known)}."
    raise InvalidValue(message, param=param)


def _check_range(value: int, low: int, high: int, param: str) -> None:
    if value < low:
        raise InvalidValue(f"Invalid '{param}': expected a value >= {low}, but got {value}.", param=param)
    if value > high:
        raise InvalidValue(f"Invalid '{param}': expected a value <= {high}, but got {value}.", param=param)


def _check_background(request: ImageRequest, model: Model) -> None:
    capabilities = model.capabilities
    if request.background == "transparent" and request.background not in capabilities.backgrounds:
        raise UnusableSetting("Transparent background is not supported for this model.", param="background")
    _check_word(request.background, capabilities.backgrounds, "background", model)
    output_format = request.output_format or DEFAULT_FORMAT
    if request.background == "transparent" and output_format not in capabilities.transparent_formats:
        message = f"Transparent background is not supported for {output_format.upper()} output format"
        raise InvalidValue(message, param="background")


def _check_compression(request: ImageRequest, model: Model) -> None:
    compression = request.output_compression
    if compression is None:
        return
    if not model.capabilities.compression:
        raise _unsupported("output_compression", model)
    _check_range(compression, 0, 100, "output_compression")
    output_format = request.output_format or DEFAULT_FORMAT
    if compression < 100 and output_format not in model.capabilities.compression_formats:
        message = f"Compression less than 100 is not supported for {output_format.upper()} output format"
        raise InvalidValue(message, param="output_compression")


def _check_input_fidelity(request: ImageRequest, model: Model) -> None:
    if request.input_fidelity is not None and request.operation is not Operation.EDIT:
        message = "Unsupported parameter: 'input_fidelity' is only for edits."
        raise UnsupportedParameter(message, param="input_fidelity")
    _check_word(request.input_fidelity, model.capabilities.input_fidelities, "input_fidelity", model)


def _check_partial_images(request: ImageRequest, model: Model) -> None:
    partial_images = request.partial_images
    if partial_images is None:
        return
    _check_range(partial_images, 0, model.capabilities.max_partial_images, "partial_images")
    if partial_images > 0 and not request.stream:
        message = f"Invalid 'partial_images': {partial_images} needs 'stream' to be true."
        raise InvalidValue(message, param="partial_images")


def _check_mask(request: ImageRequest, model: Model) -> None:
    mask = request.mask
    if mask is None:
        return
    if not model.capabilities.mask or not request.images:
        raise _unsupported("mask", model)
    if mask.format is not PictureFormat.PNG:
        message = f"Invalid mask: expected a PNG with an alpha channel, but got {mask.format.value.upper()}."
        raise UnusableMask(message, param="mask")
    if not mask.has_alpha:
        message = (
            "Invalid mask: the PNG has no alpha channel; fully transparent pixels mark what is to be edited."
        )
        raise UnusableMask(message, param="mask")
    first = request.images[0]
    if (mask.width_px, mask.height_px) != (first.width_px, first.height_px):
        message = (
            f"Invalid mask: its size {mask.width_px}x{mask.height_px} differs from "
            f"{first.width_px}x{first.height_px}, the size of the first image."
        )
        raise UnusableMask(message, param="mask")


def _unsupported(param: str, model: Model) -> UnsupportedParameter:
    message = f"Unsupported parameter: '{param}' is not supported with the model '{model.name}'."
    return UnsupportedParameter(message, param=param)
