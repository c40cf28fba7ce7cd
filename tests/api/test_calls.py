"""What a call says about itself besides the picture."""

from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request

from app.api.calls import CallOptions, fingerprint_of, read_options
from app.api.parameters import Fields


def options(**headers: str) -> CallOptions:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": given}
    return read_options(Request(scope), Fields({}))


@pytest.mark.parametrize(
    "announced,hold_s",
    [
        ("600", 595),
        ("900", 600),
        ("60", 55),
        ("10", 8),
        ("5", 4),
        ("2", 1.6),
        ("1", 0.7),
        ("0.4", 0.2),
        ("0", 600),
        ("None", 600),
        ("-1", 600),
        ("nan", 600),
        ("1e3", 600),
    ],
)
def test_a_caller_is_held_no_longer_than_its_sdk_listens(announced: str, hold_s: float) -> None:
    assert options(x_stainless_read_timeout=announced).hold_s(600) == pytest.approx(hold_s, abs=0.05)


def test_the_node_client_announces_it_under_another_name() -> None:
    assert options(x_stainless_timeout="5").hold_s(600) == pytest.approx(4, abs=0.05)
    both = options(x_stainless_timeout="600", x_stainless_read_timeout="60")
    assert both.hold_s(600) == pytest.approx(55, abs=0.05)


def test_what_a_call_has_waited_already_is_taken_off() -> None:
    call = options(x_stainless_read_timeout="2")
    late = replace(call, received_at=call.received_at - 1)
    assert late.hold_s(600) == pytest.approx(0.6, abs=0.05)
    assert replace(call, received_at=call.received_at - 9).hold_s(600) == 0


def test_a_caller_that_announces_nothing_is_held_as_long_as_we_like() -> None:
    assert options().hold_s(600) == 600


@pytest.mark.parametrize("given,count", [("0", 0), ("2", 2), ("-1", None), ("x", None), ("99999", None)])
def test_the_sdks_count_of_retries_is_read_where_it_is_one(given: str, count: int | None) -> None:
    assert options(x_stainless_retry_count=given).sdk_retry == count


@pytest.mark.parametrize(
    "one,other",
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": {"b": [1.0, {"c": 2.0}]}}, {"a": {"b": [1, {"c": 2}]}}),
        ({"a": 1, "b": None}, {"a": 1}),
    ],
)
def test_requests_for_the_same_have_one_fingerprint(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert fingerprint_of("POST", "/", one) == fingerprint_of("POST", "/", other)


@pytest.mark.parametrize(
    "one,other",
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": {"b": None}}, {"a": {}}),
        ({"a": "é"}, {"a": "e"}),
    ],
)
def test_different_requests_have_different_ones(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert fingerprint_of("POST", "/", one) != fingerprint_of("POST", "/", other)


def test_the_endpoint_is_part_of_the_fingerprint() -> None:
    assert fingerprint_of("POST", "/a", {}) != fingerprint_of("POST", "/b", {})
