"""Adapters are found by being there."""

import pkgutil

import pytest

from app.upstreams import registry, vendors


def test_every_vendor_module_is_an_adapter() -> None:
    modules = {module.name for module in pkgutil.iter_modules(vendors.__path__)}

    assert registry.adapter_names() == modules
    assert {"openai", "xairouter"} <= modules
    for name in modules:
        assert all(callable(getattr(registry.adapter(name), verb)) for verb in ("submit", "resume", "read"))


def test_an_unknown_adapter_is_named_beside_the_known_ones() -> None:
    with pytest.raises(registry.UnknownAdapter, match=r"'nope'.*openai"):
        registry.adapter("nope")
