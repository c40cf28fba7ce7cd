"""What a newcomer sees when the embedded default starts: the address, the keys, and a first picture to paste."""

import shlex
import shutil
import sys

from app.cli.catalog import CheckedCatalog
from app.settings import Settings

_MODEL = "gpt-image-2"
# Python rather than jq: where Darkroom runs, it is there.
_SAVE = """\
import base64, json, sys
answer = json.load(sys.stdin)
if "error" in answer: sys.exit(answer["error"]["message"])
open("darkroom.png", "wb").write(base64.b64decode(answer["data"][0]["b64_json"]))
print("Saved darkroom.png")"""


def banner(settings: Settings, checked: CheckedCatalog) -> str:
    """Write the text for standard output. It holds keys, so it is for the embedded default alone."""
    return "\n".join(
        [
            "",
            "  Darkroom is serving.",
            "",
            f"  Base URL    {settings.public_url}/v1",
            f"  API key     {settings.api_key.get_secret_value()}",
            f"  Admin key   {settings.admin_key.get_secret_value()}",
            "",
            *_offer(checked),
            "  A first picture; paste this into another terminal:",
            "",
            first_picture(settings.public_url, settings.api_key.get_secret_value(), checked),
            "",
            f"  Data and keys are kept in {settings.data_dir}. Ctrl-C stops.",
            "",
        ]
    )


def first_picture(public_url: str, api_key: str, checked: CheckedCatalog) -> str:
    """Write a shell command that has a picture made and saves it as `darkroom.png`, at the left margin."""
    models = checked.catalog.models
    model = _MODEL if _MODEL in models else next(iter(models), _MODEL)
    python = "python3" if shutil.which("python3") else shlex.quote(sys.executable)
    body = f'{{"model": "{model}", "prompt": "a lighthouse at dusk, oil on canvas"}}'
    return (
        f"curl -sS {shlex.quote(f'{public_url}/v1/images/generations')} \\\n"
        f"  -H 'Authorization: Bearer {api_key}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)} \\\n"
        f"  | {python} -c {shlex.quote(_SAVE)}"
    )


def _offer(checked: CheckedCatalog) -> list[str]:
    lines: list[str] = []
    if checked.stand_ins:
        missing = checked.missing
        variables = {
            missing[route.upstream.name]
            for name in checked.stand_ins
            for route in checked.catalog.models[name].routes
            if route.upstream.name in missing
        }
        lines += [
            f"  Drawn by the sandbox, free placeholders: {', '.join(checked.stand_ins)}",
            f"  For real pictures set one of: {', '.join(sorted(variables))} (here or in .env), and start again.",
            "",
        ]
    bought = [name for name in checked.catalog.models if name not in {*checked.stand_ins, *checked.unserved}]
    if bought:
        lines += [f"  Bought from vendors: {', '.join(bought)}", ""]
    return lines
