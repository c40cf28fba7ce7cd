"""The options that several commands share."""

from typing import Annotated, TypeAlias

import typer

BaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        help="Where the gateway is reached. [default: DARKROOM_PUBLIC_URL, else http://127.0.0.1:8080]",
    ),
]
ApiKey: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--api-key", help="An API key. [default: DARKROOM_API_KEY, else the key in the data directory]"
    ),
]
AdminKey: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--api-key", help="An admin key. [default: DARKROOM_ADMIN_KEY, else the key in the data directory]"
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
