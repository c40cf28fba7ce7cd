"""OpenAI itself, and every server that speaks its images format without quirks."""

from typing import Final

from app.upstreams.families.openai import OpenAIImages

ADAPTER: Final = OpenAIImages()
