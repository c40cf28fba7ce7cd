"""The sandbox's options are checked at once, and decide the same way every time."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from app.kit.json import Json
from app.upstreams.sandbox.options import SandboxFailure, SandboxOptions, SandboxOptionsInvalid


def test_without_options_the_sandbox_is_quick_and_never_fails() -> None:
    options = SandboxOptions.parse({})

    assert options == SandboxOptions()
    assert [options.delay(call) for call in (1, 2, 3)] == [0, 0, 0]
    assert [options.failure(call, "a boat") for call in (1, 2, 3)] == [None, None, None]


def test_every_kth_call_fails() -> None:
    options = SandboxOptions.parse({"fail": [{"kind": "down", "every": 3}]})

    assert [call for call in range(1, 10) if options.failure(call, "a boat")] == [3, 6, 9]


def test_a_marker_in_the_prompt_fails_the_call() -> None:
    options = SandboxOptions.parse({"fail": [{"kind": "moderation", "prompt": "#blocked"}]})
    failure = options.failure(1, "a boat #blocked")

    assert options.failure(1, "a boat") is None
    assert failure is not None
    assert failure.kind is SandboxFailure.MODERATION


def test_a_probability_hits_about_its_share_of_calls_and_always_the_same() -> None:
    rules: Json = [{"kind": "busy", "probability": 0.25}]
    options = SandboxOptions.parse({"fail": rules, "seed": 5})
    hit = [call for call in range(1, 1001) if options.failure(call, "a boat")]

    assert 200 < len(hit) < 300
    assert hit == [call for call in range(1, 1001) if options.failure(call, "a boat")]
    other = SandboxOptions.parse({"fail": rules, "seed": 6})
    assert hit != [call for call in range(1, 1001) if other.failure(call, "a boat")]


def test_the_first_rule_that_applies_decides() -> None:
    options = SandboxOptions.parse(
        {"fail": [{"kind": "quota", "prompt": "boat"}, {"kind": "busy", "every": 1, "retry_after_s": 7}]}
    )

    kinds = [rule.kind for prompt in ("a boat", "a fox") if (rule := options.failure(1, prompt))]
    assert kinds == [SandboxFailure.QUOTA, SandboxFailure.BUSY]


def test_a_range_of_delays_is_drawn_from_the_seed() -> None:
    options = SandboxOptions.parse({"delay_s": [1, 4], "seed": 3})
    delays = [options.delay(call) for call in range(1, 50)]

    assert all(1 <= delay <= 4 for delay in delays)
    assert max(delays) - min(delays) > 2
    assert delays == [options.delay(call) for call in range(1, 50)]
    assert SandboxOptions.parse({"delay_s": 2.5}).delay(9) == 2.5


@pytest.mark.parametrize(
    "options,message",
    [
        ({"dealy_s": 1}, "options.dealy_s: there is no such option. Did you mean delay_s?"),
        ({"delay_s": "soon"}, "options.delay_s: 'soon' is no delay."),
        ({"delay_s": [4, 1]}, "options.delay_s: [4, 1] is no delay."),
        ({"delay_s": [1, 2, 3]}, "options.delay_s: [1, 2, 3] is no delay."),
        ({"delay_s": -1}, "options.delay_s: -1 is no delay."),
        ({"delay_s": float("nan")}, "options.delay_s: nan is no delay."),
        ({"delay_s": True}, "options.delay_s: True is no delay."),
        ({"seed": "x"}, "options.seed: 'x' is not a whole number."),
        ({"fail": {"kind": "busy"}}, "options.fail: must be a list"),
        ({"fail": ["busy"]}, "options.fail[0]: 'busy' is not a rule."),
        ({"fail": [{"kind": "bussy", "every": 1}]}, "options.fail[0].kind: 'bussy' is not a failure. Write one"),
        ({"fail": [{"every": 1}]}, "options.fail[0].kind: None is not a failure."),
        ({"fail": [{"kind": "busy"}]}, "options.fail[0]: says nothing about when to fail."),
        (
            {"fail": [{"kind": "busy", "every": 1, "prompt": "x"}]},
            "options.fail[0]: says every and prompt about when to fail.",
        ),
        ({"fail": [{"kind": "busy", "every": 0}]}, "options.fail[0].every: 0 must be a whole number from 1"),
        ({"fail": [{"kind": "busy", "probability": 0}]}, "options.fail[0].probability: 0 must be above 0"),
        ({"fail": [{"kind": "busy", "probability": 1.1}]}, "options.fail[0].probability: 1.1 must be above 0"),
        ({"fail": [{"kind": "busy", "prompt": " "}]}, "options.fail[0].prompt: ' ' must be a text"),
        ({"fail": [{"kind": "busy", "when": 1}]}, "options.fail[0].when: there is no such option."),
        ({"fail": [{"kind": "down", "every": 1, "retry_after_s": 1}]}, "options.fail[0].retry_after_s: only busy"),
        (
            {"fail": [{"kind": "busy", "every": 1, "retry_after_s": -1}]},
            "options.fail[0].retry_after_s: -1 must be seconds",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(options: Mapping[str, Json], message: str) -> None:
    with pytest.raises(SandboxOptionsInvalid, match=re.escape(message)):
        SandboxOptions.parse(options)


def test_the_documented_example_can_be_used_and_every_kind_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None

    options = SandboxOptions.parse(YAML(typ="safe").load(example[1])["upstreams"]["sandbox"]["options"])

    assert len(options.fail) == 3
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(SandboxFailure)
