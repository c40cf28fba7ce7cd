"""`darkroom generate`: a client that submits a job, follows it, and saves its pictures."""

import json
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.configuration import connect
from app.cli.options import ApiKey, AsJson, BaseUrl
from app.cli.pictures import check_target, cost, ended_badly, save_pictures
from app.cli.progress import wait_for
from app.kit.json import JsonObject

app = typer.Typer(add_completion=False)

# The formats that a file's name asks for; any other name leaves the choice to the model.
_FORMATS: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture should show.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Where to save it; several become out-1.png, out-2.png, ..."),
    ] = Path("out.png"),
    model: Annotated[str, typer.Option(help="The model to ask for.")] = "gpt-image-2",
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels, or auto.")] = None,
    quality: Annotated[str | None, typer.Option(help="As the model has it: low, medium, high, auto.")] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="png, jpeg or webp. [default: as the output's name ends]")
    ] = None,
    background: Annotated[str | None, typer.Option(help="transparent, opaque or auto.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=10, help="How many pictures.")] = 1,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Have a picture made, and save it.

    Ends with 0 when it is saved, 1 when the job failed, 2 for a wrong request, 3 when no gateway answers, 4 when the
    key is refused.
    """
    check_target(output)
    chosen: dict[str, str | None] = {
        "size": size,
        "quality": quality,
        "output_format": output_format or _FORMATS.get(output.suffix.lower()),
        "background": background,
    }
    request: JsonObject = {"model": model, "prompt": prompt, "n": n}
    request.update({name: value for name, value in chosen.items() if value is not None})
    with connect(base_url, api_key) as gateway:
        started_at = time.monotonic()
        job = wait_for(gateway, gateway.submit(request))
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
