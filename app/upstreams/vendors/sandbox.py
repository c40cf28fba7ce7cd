"""The sandbox speaks OpenAI's format; that nothing leaves the process is known to its transport alone."""

from typing import Final

from app.upstreams.families.openai import OpenAIImages

ADAPTER: Final = OpenAIImages()
