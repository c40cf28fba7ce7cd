"""Where an attempt went, written down with it, so that its order can be asked after when the catalog has changed."""

from dataclasses import asdict, dataclass

from app.catalog.entries import Route, Upstream
from app.jobs.records import Attempt
from app.kit.json import JsonObject
from app.upstreams.contract import Target, Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An attempt's upstream as it was when the attempt was opened."""

    upstream: Upstream
    remote_model: str
    timeout_s: float
    """The hard limit of this attempt's call."""
    is_streamed: bool
    """Whether the answer comes as events while the vendor draws."""
    can_link: bool
    """Whether the vendor can fetch inputs from the gateway by link."""

    def target(self, attempt: Attempt) -> Target:
        """What the adapter needs to know."""
        return Target(
            base_url=self.upstream.base_url,
            model=self.remote_model,
            pictures=attempt.pictures,
            options=self.upstream.options,
            is_streamed=self.is_streamed,
            can_link=self.can_link,
        )

    def poll_after_s(self, advice: Waiting) -> float:
        """When to ask again: the vendor's advice, unless the catalog's option `poll_every_s` says otherwise."""
        chosen = self.upstream.options.get("poll_every_s")
        return float(chosen) if isinstance(chosen, int | float) else advice.poll_after_s


def target_document(route: Route, *, timeout_s: float, wants_stream: bool, can_link: bool) -> JsonObject:
    """Write down where an attempt goes; the key stays in the environment, only its name is kept."""
    return {
        "upstream": {**asdict(route.upstream)},
        "model": route.model,
        "timeout_s": timeout_s,
        "is_streamed": wants_stream and route.supports.stream,
        "can_link": can_link,
    }


def order_of(attempt: Attempt) -> Order:
    """Read what `target_document` wrote."""
    document = attempt.target
    upstream = document["upstream"]
    if not isinstance(upstream, dict):
        raise TypeError(f"attempt {attempt.id} has no upstream written down")
    return Order(
        upstream=Upstream(**upstream),
        remote_model=str(document["model"]),
        timeout_s=float(str(document["timeout_s"])),
        is_streamed=document.get("is_streamed") is True,
        can_link=document.get("can_link") is True,
    )
