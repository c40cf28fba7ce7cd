"""A vendor is an adapter, an entry in the catalog, a simulator and samples: none of them may be missing."""

import importlib.util
from dataclasses import replace
from typing import Final

import pytest

from app.catalog.loader import load_catalog
from app.upstreams.registry import adapter_names
from tests.catalog.shipped import FILE, shipped
from tests.conformance.vendors import SPEECHES
from tests.simulators.all import PORTS, simulators
from tests.upstreams.test_samples import FILES

# The sandbox is no vendor: it stands within the process, and is its own simulator.
VENDORS: Final = sorted(adapter_names() - {"sandbox"})
SIMULATED: Final = load_catalog(FILE.with_name("simulated.yaml"), adapter_names())

every_vendor = pytest.mark.parametrize("vendor", VENDORS)


@every_vendor
def test_a_vendor_is_sold_by_the_shipped_catalog(vendor: str) -> None:
    routes = [route for model in shipped().models.values() for route in model.routes]
    assert vendor in {route.upstream.adapter for route in routes}


@every_vendor
def test_a_vendor_has_a_simulator_that_runs_on_its_own_and_with_the_others(vendor: str) -> None:
    assert importlib.util.find_spec(f"tests.simulators.{vendor}") is not None
    assert vendor in PORTS
    assert vendor in {simulator.name for simulator in simulators((0.0, 0.0))}


@every_vendor
def test_a_vendor_has_samples_of_a_success_and_of_a_failure(vendor: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in FILES if path.parent.name == vendor]
    assert any('"outcome": "finished"' in text for text in texts)
    assert any('"outcome": "finished"' not in text for text in texts)


@every_vendor
def test_a_vendor_passes_the_conformance_suite(vendor: str) -> None:
    assert vendor in {speech.vendor for speech in SPEECHES}


def test_there_are_no_samples_of_unknown_vendors() -> None:
    assert {path.parent.name for path in FILES} <= set(VENDORS)


def test_the_simulated_catalog_sells_what_the_shipped_one_does_from_this_machine() -> None:
    ports = {
        name: f"http://127.0.0.1:{PORTS[name]}/v1" if name in PORTS else upstream.base_url
        for name, upstream in shipped().upstreams.items()
    }
    for name, upstream in shipped().upstreams.items():
        options = {**upstream.options, **({"accepts_data_urls": True} if name == "imarouter" else {})}
        assert SIMULATED.upstreams[name] == replace(upstream, base_url=ports[name], options=options)
    simulated, real = (path.read_text(encoding="utf-8") for path in (FILE.with_name("simulated.yaml"), FILE))
    assert simulated[simulated.index("\nmodels:") :] == real[real.index("\nmodels:") :]
