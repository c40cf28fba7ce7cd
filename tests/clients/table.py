"""The page that says which client can do what: `python -m tests.clients.table` writes it, a test compares it."""

import importlib
import json
from pathlib import Path
from typing import Final

from tests.clients.features import CLIENTS, FEATURES, SHOWN

PAGE: Final = Path(__file__).parents[2] / "docs" / "compatibility.md"
MODULES: Final = ("test_frameworks", "test_node", "test_openai_python", "test_snippets")


def page() -> str:
    """The page, from what all tests say that they show."""
    for module in MODULES:
        importlib.import_module(f"tests.clients.{module}")
    pins = _node_pins() | _python_pins()
    rows = [f"| {_filled(name, pins)} | {' | '.join(_cells(client))} |" for client, name in CLIENTS.items()]
    return "\n".join([_HEAD, f"| client | {' | '.join(FEATURES.values())} |", _RULE, *rows, "", _NOTES])


def _cells(client: str) -> list[str]:
    return ["yes" if (client, feature) in SHOWN else "" for feature in FEATURES]


def _filled(name: str, pins: dict[str, str]) -> str:
    for package, pinned in pins.items():
        name = name.replace(f"{{{package}}}", pinned)
    return name


def _node_pins() -> dict[str, str]:
    document = json.loads((Path(__file__).parent / "node" / "package.json").read_text())
    return {f"npm:{package}": pinned for package, pinned in document["dependencies"].items()}


def _python_pins() -> dict[str, str]:
    text = (PAGE.parents[1] / "requirements" / "clients.txt").read_text()
    lines = (line.split(" ")[0] for line in text.splitlines() if line[:1].isalpha())
    pairs = (line.split("==") for line in lines if "==" in line)
    return {f"pypi:{package}": pinned for package, pinned in pairs}


_RULE: Final = "| --- |" + " --- |" * len(FEATURES)
_HEAD: Final = """# Clients that work

Each "yes" is a test that runs the client itself against a gateway with the sandbox behind it; `make test` runs those
that need only Python, `make test-clients` the others. An empty cell says that nobody has shown it, or that the client
has no such thing. This page is written by `python -m tests.clients.table` and compared with the tests.
"""
_NOTES: Final = """## What to know

- Every client changes its address and its key, and nothing else.
- A client that announces its read timeout, as OpenAI's do, is answered shortly before with 504 `job_still_running`; its
  own retries then go on waiting for the same job. A timeout of two seconds works, with enough retries.
- A streamed picture's `usage` is null when the vendor reported none; nothing is made up.
- `n` pictures of a chat completion are `n` choices. `content` shows a picture by a signed link, `images` hold it.
- Chat completions take these parameters without effect, because SDKs send them whatever the model is:
  `frequency_penalty`, `logit_bias`, `max_completion_tokens`, `max_tokens`, `parallel_tool_calls`, `presence_penalty`,
  `prompt_cache_key`, `prompt_cache_retention`, `reasoning_effort`, `seed`, `stop`, `store`, `temperature`, `top_p` and
  `verbosity`. Others are taken where they ask for nothing: `tools` and `functions` that are empty, `tool_choice` and
  `function_call` as `none` or `auto`, `response_format` as text, `logprobs` as false, `service_tier` as `auto` or
  `default`; with any other value they are refused with `unsupported_parameter`, and names that chat completions do not
  have with `unknown_parameter`.
- A picture to edit is a part `image_url`, or `file` with a `file_id` of `POST /v1/files`, or with `file_data`.
- LangChain's image tool of `langchain-community` reads links and cannot ask for them, so it works with no GPT image
  model, at OpenAI neither; its chat model shows the pictures.
- Of a conversation, the last message of the role `user` is the prompt; what stands before it is not read.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
