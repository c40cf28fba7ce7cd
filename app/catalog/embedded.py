"""The embedded default's promise that the first request works: the sandbox serves what no key can buy."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final

from app.catalog.entries import Catalog, Model, Prices, Route, Supports, TokenPrices, Upstream

SANDBOX: Final = "sandbox"
"""The name of the upstream, and of its adapter, that draws placeholder pictures in the process."""


def with_sandbox(catalog: Catalog, is_on: Callable[[Upstream], bool]) -> Catalog:
    """Give a sandbox route to each model none of whose routes has an upstream that is on.

    The catalog comes back as it is when it configures no upstream named `sandbox`. The version stays: it is the
    digest of the file.
    """
    sandbox = catalog.upstreams.get(SANDBOX)
    if sandbox is None:
        return catalog
    models = {
        name: model
        if any(is_on(route.upstream) for route in model.routes)
        else replace(model, routes=(*model.routes, _sandbox_route(model, sandbox)))
        for name, model in catalog.models.items()
    }
    return replace(catalog, models=models)


def _sandbox_route(model: Model, sandbox: Upstream) -> Route:
    capabilities = model.capabilities
    return Route(
        upstream=sandbox,
        model=model.name,
        weight=1,
        supports=Supports(
            edits=capabilities.edits,
            mask=capabilities.mask,
            stream=True,
            compression=capabilities.compression,
            moderation=bool(capabilities.moderations),
            input_fidelity=bool(capabilities.input_fidelities),
            safety_identifier=True,
            unknown_parameters=True,
        ),
        prices=_free(model),
    )


def _free(model: Model) -> Prices:
    """A price of zero that is known to be zero, by token and by image: placeholder pictures are bought from nobody."""
    free: Mapping[str, Decimal] = dict.fromkeys(model.capabilities.qualities or ("auto",), Decimal(0))
    zero = Decimal(0)
    return Prices(
        per_million_tokens=TokenPrices(text_input=zero, image_input=zero, image_output=zero),
        per_image=dict(free),
    )
