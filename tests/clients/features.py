"""Which client can do what with Darkroom, as the tests that show it say."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Final, TypeVar

CLIENTS: Final = {
    "openai-python": f"`openai` {version('openai')} for Python, both clients",
    "openai-node": "`openai` {npm:openai} for Node",
    "ai-sdk": "Vercel AI SDK: `ai` {npm:ai}, `@ai-sdk/openai` {npm:@ai-sdk/openai}",
    "litellm": "LiteLLM's SDK {pypi:litellm}",
    "langchain": "LangChain's chat model: `langchain-openai` {pypi:langchain-openai}",
    "therouter": "TheRouter's shell snippets, with curl",
    "xairouter": "XaiRouter's Python and shell snippets",
    "llm-reference": "LLM Reference's Python snippet",
    "imarouter": "ImaRouter's JavaScript snippet",
}
FEATURES: Final = {
    "pictures": "pictures",
    "links": "links",
    "stream": "streamed, with coarse pictures",
    "edits": "edits",
    "chat": "chat completions",
    "chat-stream": "chat, streamed",
    "jobs": "jobs, polled",
    "errors": "its own errors",
}
Test = TypeVar("Test", bound=Callable[..., object])

SHOWN: Final[set[tuple[str, str]]] = set()
"""Every pair of a client and a feature that some test shows."""


def shows(client: str, *features: str) -> Callable[[Test], Test]:
    """Say that a test shows these features of this client, by their names above."""
    for feature in features:
        if client not in CLIENTS or feature not in FEATURES:
            raise ValueError(f"{client!r} and {feature!r} have no place in the table")
        SHOWN.add((client, feature))

    def unchanged(test: Test) -> Test:
        return test

    return unchanged
