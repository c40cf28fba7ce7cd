"""LiteLLM's SDK, as its users use it, in an environment of its own. Writes one JSON document of what came."""

import json
import os
import sys
from pathlib import Path

import litellm  # type: ignore[import-not-found]  # not in our own environment

where = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}
asked = {"model": "openai/gpt-image-2", "prompt": "a boat", **where}

pictures = litellm.image_generation(**asked, size="1024x1024", n=2)
with Path("input.png").open("rb") as picture:
    edited = litellm.image_edit(**asked, image=picture, size="1024x1024")
said = litellm.completion(
    model="openai/gpt-image-2", messages=[{"role": "user", "content": "a boat"}], **where
)
status = None
try:
    litellm.image_generation(**asked, size="1x1")
except litellm.BadRequestError as exc:
    status = exc.status_code

found = {
    "pictures": [item.b64_json for item in pictures.data],
    "edited": edited.data[0].b64_json,
    "content": said.choices[0].message.content,
    "error": status,
}
sys.stdout.write(f"\n{json.dumps(found)}\n")
