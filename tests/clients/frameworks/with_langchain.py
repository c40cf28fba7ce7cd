"""LangChain's chat model, as its users use it, in an environment of its own. Writes one JSON document of what came."""

import json
import sys

from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]  # not in our own environment

chat = ChatOpenAI(model="gpt-image-2")
found = {
    "content": chat.invoke("a boat").content,
    "said": "".join(str(chunk.content) for chunk in chat.stream("a boat")),
}
sys.stdout.write(f"\n{json.dumps(found)}\n")
