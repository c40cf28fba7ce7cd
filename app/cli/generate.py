"""`darkroom generate`: has a picture made, and saves it."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import (
    ApiKey,
    AsJson,
    Background,
    BaseUrl,
    Count,
    Format,
    Model,
    NoWait,
    Output,
    Quality,
    Size,
)
from app.cli.orders import fulfil, wanted

app = typer.Typer(add_completion=False)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture should show.")],
    output: Output = Path("out.png"),
    model: Model = "gpt-image-2",
    size: Size = None,
    quality: Quality = None,
    output_format: Format = None,
    background: Background = None,
    n: Count = 1,
    no_wait: NoWait = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Have a picture made, and save it.

    Ends with 0 when it is saved, 1 when the job failed, 2 for a wrong request, 3 when no gateway answers, 4 when the
    key is refused.
    """
    request = wanted(
        prompt, output, n, output_format, model=model, size=size, quality=quality, background=background
    )
    fulfil(
        lambda gateway: gateway.submit(request),
        output, base_url, api_key, no_wait=no_wait, as_json=as_json,
    )  # fmt: skip
