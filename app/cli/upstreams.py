"""`darkroom upstreams`: the vendors' accounts. Over the admin API, except `check`, which asks the vendor itself."""

import asyncio
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from app.catalog.embedded import SANDBOX
from app.cli.catalog import CatalogMistakes, CheckedCatalog, check_catalog
from app.cli.checks import Finding, Verdict, check_upstreams
from app.cli.configuration import connect_as_admin, load_settings
from app.cli.errors import CommandFailed, UsageMistake
from app.cli.options import AdminKey, AdminUrl, AsJson
from app.cli.purchases import Purchase, buy_one, cheapest_route
from app.cli.tables import print_facts, print_table
from app.domain.money import Certainty, usd
from app.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="List, check, enable, disable, drain and reset upstreams.",
)

Name = Annotated[str, typer.Argument(help="The upstream's name in the catalog.")]
ModelName = Annotated[
    str | None, typer.Option("--model", help="Only this model, by its public name or the upstream's own.")
]

_DONE: Final = {"enable": "enabled", "disable": "disabled", "drain": "draining", "reset": "reset"}


@app.command("list")
def list_upstreams(base_url: AdminUrl = None, api_key: AdminKey = None, as_json: AsJson = False) -> None:
    """List every upstream with its health."""
    with connect_as_admin(base_url, api_key) as gateway:
        upstreams = gateway.upstreams()
    if as_json:
        print(json.dumps(upstreams, ensure_ascii=False))
        return
    rows = [
        (each["name"], _state(each), _away(each), each.get("in_flight"), _key(each)) for each in upstreams
    ]
    print_table(("upstream", "state", "until", "in flight", "key"), rows)


@app.command()
def enable(
    name: Name,
    model: ModelName = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask an upstream again. What is held against it stays; `reset` forgets it."""
    _turn("enable", name, model, base_url, api_key, as_json)


@app.command()
def disable(
    name: Name,
    model: ModelName = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Send an upstream nothing more. Calls in flight end, for they are paid for."""
    _turn("disable", name, model, base_url, api_key, as_json)


@app.command()
def drain(
    name: Name,
    model: ModelName = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Send an upstream nothing more, in order to take it out once its calls have ended; `list` shows how many."""
    _turn("drain", name, model, base_url, api_key, as_json)


@app.command()
def reset(
    name: Name,
    model: ModelName = None,
    base_url: AdminUrl = None,
    api_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Forget an upstream's failures and absences, so that it is asked at once. Whether it is enabled stays."""
    _turn("reset", name, model, base_url, api_key, as_json)


@app.command()
def check(
    name: Name,
    buy: Annotated[
        bool, typer.Option("--buy", help="Buy one picture of low quality, and keep a sample of the exchange.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="What to buy, by its public name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a vendor itself, with the key of this environment. Free, unless told to buy."""
    settings = load_settings(make_secrets=False)
    checked = _only(name, settings)
    upstream = checked.catalog.upstreams[name]
    if not buy:
        (finding,) = asyncio.run(check_upstreams(settings, checked))
        _print_finding(finding, as_json=as_json)
        if finding.verdict is Verdict.FAIL:
            raise typer.Exit(1)
        return
    if upstream.adapter == SANDBOX:
        raise UsageMistake(f"The upstream {name!r} draws inside the gateway; there is nothing to buy.")
    missing = checked.missing.get(name)
    if missing is not None:
        raise CommandFailed(f"The upstream {name!r} is off: set {missing} to its API key.")
    bought, route = cheapest_route(checked, upstream, model)
    purchase = asyncio.run(buy_one(settings, checked, bought, route))
    _print_purchase(name, purchase, as_json=as_json)


def _turn(
    verb: str, name: str, model: str | None, base_url: str | None, api_key: str | None, as_json: bool
) -> None:
    with connect_as_admin(base_url, api_key) as gateway:
        upstream: Any = gateway.turn_upstream(name, verb, model)
    if as_json:
        print(json.dumps(upstream, ensure_ascii=False))
        return
    subject = f"The upstream {name}" if model is None else f"The model {model} at {name}"
    calls = upstream.get("in_flight", 0)
    in_flight = {0: "No call is in flight.", 1: "1 call in flight ends by itself."}
    ends = in_flight.get(calls, f"{calls} calls in flight end by themselves.")
    ending = f" {ends}" if verb in {"disable", "drain"} else ""
    print(f"{subject} is {_DONE[verb]}.{ending}")


def _only(name: str, settings: Settings) -> CheckedCatalog:
    """The catalog with this upstream alone."""
    try:
        checked = check_catalog(settings.config, settings)
    except CatalogMistakes as exc:
        raise CommandFailed("\n".join(exc.mistakes)) from exc
    upstreams = checked.catalog.upstreams
    if name not in upstreams:
        raise UsageMistake(f"There is no upstream {name!r}. There are: {', '.join(upstreams)}.")
    return replace(checked, catalog=replace(checked.catalog, upstreams={name: upstreams[name]}))


def _print_finding(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(finding), ensure_ascii=False))
        return
    print(f"{finding.verdict}  {finding.detail}")
    if finding.fix:
        print(finding.fix)


def _print_purchase(name: str, purchase: Purchase, *, as_json: bool) -> None:
    cost = purchase.cost
    is_known = cost.certainty is not Certainty.UNPRICED
    if as_json:
        document = {
            "upstream": name,
            "model": purchase.model,
            "format": purchase.format,
            "size": purchase.size,
            "cost_usd": usd(cost.micros) if is_known else None,
            "certainty": cost.certainty.value,
            "took_s": round(purchase.took_s, 3),
            "samples": [str(path) for path in purchase.samples],
        }
        print(json.dumps(document, ensure_ascii=False))
        return
    print_facts(
        {
            "bought": f"1 picture, {purchase.format}, {purchase.size}, of {purchase.model} at {name}",
            "cost": f"${usd(cost.micros)} ({cost.certainty})"
            if is_known
            else "unknown: the route has no price",
            "time": f"{purchase.took_s:.1f} s",
            "samples": "\n".join(str(path) for path in purchase.samples),
        }
    )


def _state(upstream: Any) -> str:
    if upstream.get("switch") != "on":
        return str(upstream.get("switch"))
    if (upstream.get("key") or {}).get("is_missing"):
        return "off"
    if upstream.get("away_for"):
        return str(upstream["away_for"])
    return "ready" if upstream.get("breaker") == "closed" else str(upstream.get("breaker"))


def _away(upstream: Any) -> str | None:
    until = upstream.get("away_until")
    return None if not until else f"{datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC"


def _key(upstream: Any) -> str | None:
    key = upstream.get("key") or {}
    if key.get("is_missing"):
        return f"{key.get('variable')} is not set"
    return key.get("variable")
