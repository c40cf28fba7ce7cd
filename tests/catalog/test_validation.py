"""What a model refuses, in OpenAI's words and in OpenAI's order."""

from dataclasses import replace
from typing import Any

import pytest

from app.catalog.entries import Capabilities, Model
from app.catalog.sizes import check_size, largest_size
from app.catalog.validation import validate
from app.domain.errors import GatewayError
from app.domain.pictures import PictureFormat, Size
from app.domain.requests import ImageRequest, Operation
from tests.catalog.shipped import A_REQUEST, AN_EDIT, a_model, a_picture


def refusal(request: ImageRequest, model: Model | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        validate(request, model or a_model())
    return caught.value


def asked(**values: Any) -> ImageRequest:
    return replace(A_REQUEST, **values)


def limited(**values: Any) -> Model:
    model = a_model()
    capabilities: Capabilities = replace(model.capabilities, **values)
    return replace(model, capabilities=capabilities)


@pytest.mark.parametrize(
    "size",
    [
        "auto",
        "1536x864",
        "816x816",
        "1024x640",
        "1920x1088",
        "2880x2880",
        "3840x1280",
        "1280x3840",
        "3840x2160",
        "1024x1024",
        "1536x1024",
        "1024x1536",
        "2048x2048",
        "2048x1152",
        "2160x3840",
    ],
)
def test_sizes_that_gpt_image_2_makes_pass(size: str) -> None:
    validate(asked(size=size), a_model())


@pytest.mark.parametrize(
    "size, sentence",
    [
        ("1792x936", "Width and height must both be divisible by 16."),
        ("1920x1080", "Width and height must both be divisible by 16."),
        ("4096x4096", "The longest edge must be less than or equal to 3840."),
        ("512x512", "Requested resolution is below the current minimum pixel budget."),
        ("800x800", "Requested resolution is below the current minimum pixel budget."),
        ("3840x3840", "Requested resolution exceeds the current pixel budget."),
        ("2896x2896", "Requested resolution exceeds the current pixel budget."),
        ("3840x1024", "The aspect ratio must be between 1:3 and 3:1."),
        ("3840x1264", "The aspect ratio must be between 1:3 and 3:1."),
        ("1264x3840", "The aspect ratio must be between 1:3 and 3:1."),
    ],
)
def test_sizes_beyond_a_limit_are_refused_with_that_limit(size: str, sentence: str) -> None:
    error = refusal(asked(size=size))
    assert error.message == f"Invalid size '{size}'. {sentence}"
    assert (error.status, error.type, error.code, error.param) == (
        400,
        "image_generation_user_error",
        "invalid_value",
        "size",
    )


@pytest.mark.parametrize(
    "size", ["", "1024", "1024X1024", "1024×1024", "01024x1024", "-16x16", "1024x1024 ", "AUTO"]
)
def test_what_is_not_a_size_is_refused_as_a_value(size: str) -> None:
    error = refusal(asked(size=size))
    assert (error.type, error.code, error.param) == ("invalid_request_error", "invalid_value", "size")


def test_a_model_with_a_list_of_sizes_names_them() -> None:
    error = refusal(asked(size="512x512"), a_model("gpt-image-1.5"))
    assert error.message == (
        "Invalid value: '512x512'. Supported values are: '1024x1024', '1024x1536', '1536x1024', and 'auto'."
    )
    assert (error.type, error.code, error.param) == ("invalid_request_error", "invalid_value", "size")
    for size in ("1024x1024", "1024x1536", "1536x1024", "auto"):
        check_size(size, a_model("gpt-image-1.5").capabilities.sizes)


def test_the_largest_size_is_the_largest_square_within_the_limits() -> None:
    assert largest_size(a_model().capabilities.sizes) == Size(2880, 2880)
    assert largest_size(a_model("gpt-image-1").capabilities.sizes).pixels == 1536 * 1024


@pytest.mark.parametrize(
    "values, code, param",
    [
        ({"prompt": ""}, "missing_required_parameter", "prompt"),
        ({"prompt": " \n"}, "missing_required_parameter", "prompt"),
        ({"prompt": "p" * 32_001}, "invalid_value", "prompt"),
        ({"quality": "ultra"}, "invalid_value", "quality"),
        ({"output_format": "bmp"}, "invalid_value", "output_format"),
        ({"background": "green"}, "invalid_value", "background"),
        ({"background": "transparent", "output_format": "jpeg"}, "invalid_value", "background"),
        ({"output_compression": 50}, "invalid_value", "output_compression"),
        ({"output_compression": 99, "output_format": "png"}, "invalid_value", "output_compression"),
        ({"output_compression": 101, "output_format": "webp"}, "invalid_value", "output_compression"),
        ({"output_compression": -1, "output_format": "webp"}, "invalid_value", "output_compression"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 11}, "invalid_value", "n"),
        ({"input_fidelity": "low"}, "unsupported_parameter", "input_fidelity"),
        ({"moderation": "none"}, "invalid_value", "moderation"),
        ({"stream": True, "partial_images": 4}, "invalid_value", "partial_images"),
        ({"stream": True, "partial_images": -1}, "invalid_value", "partial_images"),
        ({"partial_images": 1}, "invalid_value", "partial_images"),
        ({"mask": a_picture()}, "unsupported_parameter", "mask"),
    ],
)
def test_a_bad_value_is_400_and_names_its_parameter(values: dict[str, Any], code: str, param: str) -> None:
    error = refusal(asked(**values))
    assert (error.status, error.code, error.param) == (400, code, param)
    assert not error.should_retry


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"n": 10, "quality": "auto", "background": "auto", "moderation": "low", "partial_images": 0},
        {"prompt": "p" * 32_000},
        {"background": "transparent"},
        {"background": "transparent", "output_format": "webp"},
        {"background": "opaque", "output_format": "jpeg"},
        {"output_compression": 0, "output_format": "jpeg"},
        {"output_compression": 100, "output_format": "png"},
        {"stream": True, "partial_images": 3},
        {"extra": {"svg": {"model": "x"}}},
    ],
)
def test_what_the_model_can_do_passes(values: dict[str, Any]) -> None:
    validate(asked(**values), a_model())


def test_messages_are_openais() -> None:
    assert refusal(asked(quality="ultra")).message == (
        "Invalid value: 'ultra'. Supported values are: 'low', 'medium', 'high', and 'auto'."
    )
    assert refusal(asked(prompt="")).message == "Missing required parameter: 'prompt'."
    assert refusal(asked(background="transparent", output_format="jpeg")).message == (
        "Transparent background is not supported for JPEG output format"
    )
    assert refusal(asked(output_compression=80)).message == (
        "Compression less than 100 is not supported for PNG output format"
    )


def test_a_model_without_transparency_says_so_as_openai_does() -> None:
    error = refusal(asked(background="transparent"), limited(backgrounds=("opaque", "auto")))
    assert error.message == "Transparent background is not supported for this model."
    assert (error.type, error.code, error.param) == (
        "image_generation_user_error",
        "invalid_value",
        "background",
    )


@pytest.mark.parametrize(
    "values, param",
    [
        ({"quality": "low"}, "quality"),
        ({"output_format": "png"}, "output_format"),
        ({"background": "opaque"}, "background"),
        ({"moderation": "auto"}, "moderation"),
        ({"output_compression": 100}, "output_compression"),
    ],
)
def test_a_parameter_that_the_model_does_not_have_is_unsupported(values: dict[str, Any], param: str) -> None:
    plain = limited(qualities=(), formats=(), backgrounds=(), moderations=(), compression=False)
    error = refusal(asked(**values), plain)
    assert (error.code, error.param) == ("unsupported_parameter", param)
    validate(A_REQUEST, plain)


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": ""}),
    ("size", {"size": "512x512"}),
    ("quality", {"quality": "ultra"}),
    ("background", {"background": "transparent", "output_format": "jpeg"}),
    ("output_compression", {"output_compression": 101}),
    ("n", {"n": 11}),
    ("input_fidelity", {"input_fidelity": "high"}),
]


@pytest.mark.parametrize("first", range(len(FAULTS)))
def test_of_several_faults_the_one_openai_would_name_is_told(first: int) -> None:
    values: dict[str, Any] = {}
    for _, fault in FAULTS[first:]:
        values |= fault
    assert refusal(asked(**values)).param == FAULTS[first][0]


def test_new_words_for_quality_and_format_need_only_the_catalog() -> None:
    model = limited(
        qualities=("low", "medium", "high", "xhigh", "max", "auto"),
        formats=("png", "gif", "svg"),
        transparent_formats=("png", "svg"),
    )
    validate(asked(quality="max", output_format="svg", background="transparent"), model)
    assert refusal(asked(output_format="gif", background="transparent"), model).param == "background"
    assert refusal(asked(output_format="gif", output_compression=80), model).message == (
        "Compression less than 100 is not supported for GIF output format"
    )


def test_an_edit_needs_between_one_and_sixteen_pictures() -> None:
    validate(AN_EDIT, a_model())
    validate(replace(AN_EDIT, images=(a_picture(),) * 16), a_model())
    assert refusal(replace(AN_EDIT, images=())).code == "missing_required_parameter"
    assert refusal(replace(AN_EDIT, images=(a_picture(),) * 17)).param == "image"
    assert refusal(AN_EDIT, limited(edits=False)).param == "model"


def test_input_fidelity_is_for_edits_on_models_that_have_it() -> None:
    edit = replace(AN_EDIT, input_fidelity="high")
    validate(edit, a_model("gpt-image-1.5"))
    assert refusal(edit).code == "unsupported_parameter"
    assert refusal(edit, a_model("gpt-image-1-mini")).code == "invalid_value"
    generation = replace(edit, operation=Operation.GENERATION, images=())
    assert refusal(generation, a_model("gpt-image-1.5")).code == "unsupported_parameter"


def test_a_mask_is_a_png_with_alpha_of_the_first_pictures_size() -> None:
    validate(replace(AN_EDIT, mask=a_picture()), a_model())
    for mask in (a_picture(512, 512), a_picture(form=PictureFormat.JPEG), a_picture(has_alpha=False)):
        error = refusal(replace(AN_EDIT, mask=mask))
        assert (error.status, error.code, error.param) == (400, "invalid_image", "mask")
    assert refusal(replace(AN_EDIT, mask=a_picture()), limited(mask=False)).code == "unsupported_parameter"
