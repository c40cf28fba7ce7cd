"""Which routes can do a request."""

from dataclasses import replace
from typing import Any

import pytest

from app.catalog.entries import InputWay, Route, Supports
from app.domain.pictures import Size
from app.routing.candidates import inability, pictures_per_call
from tests.catalog.shipped import A_REQUEST, AN_EDIT, a_picture, a_route


def route_with(**supports: Any) -> Route:
    return replace(a_route("openai"), supports=Supports(**supports))


@pytest.mark.parametrize("upstream", ["openai", "xairouter", "therouter", "vercel"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"size": "auto", "quality": "auto", "background": "auto", "moderation": "auto"},
        {"size": "2048x1152", "quality": "high", "background": "opaque", "output_format": "webp", "n": 10},
        {"user": "someone"},
        {"stream": True, "partial_images": 3},
    ],
)
def test_every_shipped_route_can_do_what_all_vendors_can(upstream: str, values: dict[str, Any]) -> None:
    assert inability(a_route(upstream), replace(A_REQUEST, **values)) is None


@pytest.mark.parametrize(
    "values, param",
    [
        ({"output_compression": 80}, "output_compression"),
        ({"moderation": "low"}, "moderation"),
        ({"input_fidelity": "low"}, "input_fidelity"),
        ({"safety_identifier": "s"}, "safety_identifier"),
        ({"background": "transparent"}, "background"),
        ({"extra": {"svg": True, "frames": 9}}, "frames"),
    ],
)
def test_therouter_is_not_asked_for_what_it_does_not_declare(values: dict[str, Any], param: str) -> None:
    found = inability(a_route("therouter"), replace(A_REQUEST, **values))
    assert found is not None
    assert found.param == param
    assert f"'{param}'" in found.reason
    assert "'therouter'" in found.reason


@pytest.mark.parametrize(
    "values, param",
    [
        ({"background": "opaque"}, "background"),
        ({"user": "someone"}, "user"),
        ({"output_compression": 80}, "output_compression"),
    ],
)
def test_imarouter_is_not_asked_for_what_its_dialect_lacks(values: dict[str, Any], param: str) -> None:
    found = inability(a_route("imarouter"), replace(A_REQUEST, **values))
    assert found is not None
    assert found.param == param


def test_edits_and_masks_need_a_route_that_has_them() -> None:
    masked = replace(AN_EDIT, mask=a_picture())
    assert inability(a_route("openai"), masked) is None
    assert inability(a_route("therouter"), AN_EDIT) is None
    unable = inability(a_route("therouter"), masked)
    assert unable is not None
    assert unable.param == "mask"
    unable = inability(route_with(), AN_EDIT)
    assert unable is not None
    assert unable.param == "image"


def test_a_route_may_be_for_edits_only() -> None:
    editor = route_with(generations=False, edits=True)
    assert inability(editor, AN_EDIT) is None
    unable = inability(editor, A_REQUEST)
    assert unable is not None
    assert unable.param is None


@pytest.mark.parametrize(
    "supports, able, unable, param",
    [
        ({"sizes": (Size(1024, 1024),)}, {"size": "1024x1024"}, {"size": "1024x1536"}, "size"),
        ({"qualities": ("low",)}, {"quality": "low"}, {"quality": "high"}, "quality"),
        ({"qualities": ("low",)}, {"quality": "auto"}, {"quality": "high"}, "quality"),
        ({"formats": ("png", "jpeg")}, {"output_format": "jpeg"}, {"output_format": "webp"}, "output_format"),
        ({"formats": ("jpeg",)}, {"output_format": "jpeg"}, {}, "output_format"),
        ({"backgrounds": ()}, {"background": "auto"}, {"background": "opaque"}, "background"),
        ({"user": False}, {}, {"user": "someone"}, "user"),
    ],
)
def test_a_routes_own_lists_narrow_its_models(
    supports: dict[str, Any], able: dict[str, Any], unable: dict[str, Any], param: str
) -> None:
    route = route_with(**supports)
    assert inability(route, replace(A_REQUEST, **able)) is None
    found = inability(route, replace(A_REQUEST, **unable))
    assert found is not None
    assert found.param == param


@pytest.mark.parametrize("most, n, pictures", [(None, 10, 10), (4, 10, 4), (4, 3, 3), (1, 2, 1)])
def test_a_call_buys_no_more_pictures_than_the_route_makes_at_once(
    most: int | None, n: int, pictures: int
) -> None:
    assert pictures_per_call(route_with(max_n=most), replace(A_REQUEST, n=n)) == pictures


def test_a_vendor_that_fetches_its_inputs_needs_an_address_of_ours_or_takes_data_urls() -> None:
    linked = route_with(edits=True, inputs=InputWay.LINKED)
    found = inability(linked, AN_EDIT)
    assert found is not None
    assert found.param == "image"
    assert inability(linked, AN_EDIT, can_link=True) is None
    takes_data_urls = replace(linked.upstream, options={"accepts_data_urls": True})
    assert inability(replace(linked, upstream=takes_data_urls), AN_EDIT) is None


def test_without_inputs_nothing_needs_to_be_fetched() -> None:
    assert inability(route_with(inputs=InputWay.LINKED), A_REQUEST) is None
