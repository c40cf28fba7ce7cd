"""`darkroom edit`: has pictures changed, and saves what came of it."""

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
def edit(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", exists=True, dir_okay=False, help="The pictures to start from."),
    ],
    prompt: Annotated[str, typer.Option("--prompt", help="What is to become of them.")],
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            exists=True,
            dir_okay=False,
            help="A PNG as large as the first picture; where it is transparent, the picture is changed.",
        ),
    ] = None,
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
    """Have pictures changed, and save what came of it. Ends as `generate` does."""
    request = wanted(
        prompt, output, n, output_format, model=model, size=size, quality=quality, background=background
    )
    fulfil(
        lambda gateway: gateway.submit_edit(request, images, mask),
        output, base_url, api_key, no_wait=no_wait, as_json=as_json,
    )  # fmt: skip
