"""The catalog that ships, and small pieces of it, for tests that want real models and real prices."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from app.catalog.entries import Catalog, Model, Route
from app.catalog.loader import load_catalog
from app.domain.pictures import PictureFormat
from app.domain.requests import ImageRequest, InputPicture, Operation

FILE: Final = Path(__file__).parents[2] / "config" / "gateway.yaml"
ADAPTERS: Final = frozenset({"openai", "xairouter", "therouter", "imarouter", "vercel", "sandbox"})


@cache
def shipped() -> Catalog:
    """The shipped catalog, read once; it is frozen."""
    return load_catalog(FILE, ADAPTERS)


def a_model(name: str = "gpt-image-2") -> Model:
    """A model that ships."""
    model = shipped().model(name)
    assert model is not None
    return model


def a_route(upstream: str, model: str = "gpt-image-2") -> Route:
    """The shipped route of a model at an upstream."""
    return next(route for route in a_model(model).routes if route.upstream.name == upstream)


def a_picture(
    width_px: int = 1024,
    height_px: int = 1024,
    form: PictureFormat = PictureFormat.PNG,
    *,
    has_alpha: bool = True,
) -> InputPicture:
    """An input picture that has been taken in."""
    return InputPicture(
        file_id="file_1",
        format=form,
        width_px=width_px,
        height_px=height_px,
        size_bytes=1,
        has_alpha=has_alpha,
    )


A_REQUEST: Final = ImageRequest(model="gpt-image-2", prompt="a lighthouse")
AN_EDIT: Final = replace(A_REQUEST, operation=Operation.EDIT, images=(a_picture(),))
