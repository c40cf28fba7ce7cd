"""What `darkroom generate` and `darkroom edit` share: a request is handed in, followed, and its pictures are saved."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.cli.client import Gateway
from app.cli.configuration import connect
from app.cli.errors import LeftWaiting
from app.cli.pictures import check_target, cost, ended_badly, save_pictures
from app.cli.progress import wait_for
from app.kit.json import JsonObject

# The formats that a file's name asks for; any other name leaves the choice to the model.
_FORMATS: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def wanted(prompt: str, output: Path, n: int, output_format: str | None, **chosen: str | None) -> JsonObject:
    """The body of a request, without what was left to the gateway."""
    chosen["output_format"] = output_format or _FORMATS.get(output.suffix.lower())
    request: JsonObject = {"prompt": prompt, "n": n}
    request.update({name: value for name, value in chosen.items() if value is not None})
    return request


def fulfil(
    hand_in: Callable[[Gateway], JsonObject],
    output: Path,
    base_url: str | None,
    api_key: str | None,
    *,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Hand a request in, follow its job, save its pictures, and print what they cost.

    Raises:
        CommandFailed: it was refused, its job ended without pictures, or Ctrl-C came first.
    """
    if not no_wait:
        check_target(output)
    with connect(base_url, api_key) as gateway:
        started_at = time.monotonic()
        try:
            job = hand_in(gateway)
        except KeyboardInterrupt as exc:
            raise LeftWaiting(
                "The request was being handed in, so it may have become a job that goes on without you.\n"
                "See whether it did:  darkroom jobs list --limit 1"
            ) from exc
        if no_wait:
            print(json.dumps(job, ensure_ascii=False) if as_json else job["id"])
            return
        job = wait_for(gateway, job)
        took_s = time.monotonic() - started_at
        failure = ended_badly(job)
        paths = [] if failure else save_pictures(gateway, job, output)
    if as_json:
        print(json.dumps({"job": job, "files": [str(path) for path in paths]}, ensure_ascii=False))
    if failure is not None:
        raise failure
    if not as_json:
        print(f"Saved {', '.join(str(path) for path in paths)}")
        print(f"{cost(job)} from {job.get('upstream')} in {took_s:.1f} s ({job['id']})")
