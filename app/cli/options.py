"""The options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

BaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        help="Where the gateway is reached. [default: DARKROOM_PUBLIC_URL, else http://127.0.0.1:8080]",
    ),
]
AdminUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        help="Where operators are served. [default: DARKROOM_ADMIN_LISTEN, else as for clients]",
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
EitherKey: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="An API key, or with --admin an admin key. [default: DARKROOM_API_KEY or DARKROOM_ADMIN_KEY, else the "
        "key in the data directory]",
    ),
]
AsAdmin: TypeAlias = Annotated[
    bool, typer.Option("--admin", help="As an operator: of any team, by the admin API.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

Limits: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="May be repeated: allowed_models=A,B requests_per_minute=60 images_per_minute=60 max_jobs=20 "
        "max_queued=100 "
        "budget_day_usd=5 budget_month_usd=100.",
    ),
]
ChangedLimits: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="As with `create`; `none` as the value lifts a limit, and one that is not named stays.",
    ),
]

Output: TypeAlias = Annotated[
    Path,
    typer.Option("-o", "--output", help="Where to save it; several become out-1.png, out-2.png, ..."),
]
Model: TypeAlias = Annotated[str, typer.Option("--model", help="The model to ask for.")]
Size: TypeAlias = Annotated[str | None, typer.Option("--size", help="WIDTHxHEIGHT in pixels, or auto.")]
Quality: TypeAlias = Annotated[
    str | None, typer.Option("--quality", help="As the model has it: low, medium, high, auto.")
]
Format: TypeAlias = Annotated[
    str | None, typer.Option("--format", help="png, jpeg or webp. [default: as the output's name ends]")
]
Background: TypeAlias = Annotated[
    str | None, typer.Option("--background", help="transparent, opaque or auto.")
]
Count: TypeAlias = Annotated[int, typer.Option("-n", min=1, max=10, help="How many pictures.")]
NoWait: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--async", help="Print the job's id and end; `darkroom jobs watch JOB -o FILE` collects it later."
    ),
]
