"""The typed catalog: upstreams, models, routes and prices, as frozen values without secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum

from app.domain.pictures import Size
from app.kit.json import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A configured account at a vendor."""

    name: str
    adapter: str
    base_url: str
    """Without a trailing slash."""
    api_key_env: str | None
    """The environment variable that holds the key; None when the upstream needs none."""
    max_concurrency: int
    """Calls in flight, over all workers together."""
    requests_per_minute: int | None
    images_per_minute: int | None
    timeout_s: float
    """The hard limit of one call, from the first byte to the last."""
    options: Mapping[str, Json] = field(default_factory=dict)

    @property
    def accepts_data_urls(self) -> bool:
        """Whether its option of that name lets the inputs that it takes by link stand in the call as data URLs."""
        return self.options.get("accepts_data_urls") is True


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRule:
    """Which sizes a model makes: an explicit list, or any size within the limits; `auto` is always allowed."""

    allowed: tuple[Size, ...] | None = None
    """When given, exactly these, and the limits below do not apply."""
    multiple_of_px: int = 1
    max_edge_px: int | None = None
    max_ratio: Decimal | None = None
    """Long edge over short edge, inclusive."""
    min_pixels: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRule:
    """How many output tokens a picture costs (upstreams.md 1.14): a formula's factors, or a table."""

    factors: Mapping[str, int] | None = None
    """Quality -> f of the gpt-image-2 formula."""
    table: Mapping[str, Mapping[str, int]] | None = None
    """Quality -> size -> tokens."""
    partial_image: int = 100
    """Output tokens of each streamed partial image."""
    input_image: int = 512
    """Input tokens of each input picture; an estimate, no formula is published."""
    input_image_bound: int = 7000
    """Input tokens that no input picture is thought to pass; what a hold is made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a model can do, at any vendor. An empty tuple means that the parameter is not accepted."""

    edits: bool
    sizes: SizeRule
    qualities: tuple[str, ...]
    formats: tuple[str, ...]
    backgrounds: tuple[str, ...]
    moderations: tuple[str, ...]
    input_fidelities: tuple[str, ...]
    compression: bool
    max_n: int
    max_prompt_chars: int
    max_input_images: int
    max_partial_images: int
    mask: bool
    transparent_formats: tuple[str, ...] = ("png", "webp")
    """Formats that a transparent background can be asked for in."""
    compression_formats: tuple[str, ...] = ("jpeg", "webp")
    """Formats whose compression can be set; elsewhere only 100 is accepted."""


class InputWay(StrEnum):
    """How the input pictures of an edit get to a vendor."""

    SENT = "sent"
    """In the call itself, as files of a form or as data URLs."""
    LINKED = "linked"
    """By links, which the vendor fetches from the gateway; or sent, where the upstream accepts data URLs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supports:
    """What one route can do of its model's capabilities. None means: all that the model can."""

    generations: bool = True
    edits: bool = False
    inputs: InputWay = InputWay.SENT
    mask: bool = False
    stream: bool = False
    max_n: int | None = None
    """Pictures per call; a request for more becomes several attempts."""
    sizes: tuple[Size, ...] | None = None
    qualities: tuple[str, ...] | None = None
    formats: tuple[str, ...] | None = None
    backgrounds: tuple[str, ...] | None = None
    compression: bool = False
    moderation: bool = False
    input_fidelity: bool = False
    user: bool = True
    safety_identifier: bool = False
    unknown_parameters: bool = False
    """Whether parameters that the catalog does not know may be passed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrices:
    """USD per million tokens."""

    text_input: Decimal = Decimal(0)
    cached_text_input: Decimal | None = None
    image_input: Decimal = Decimal(0)
    cached_image_input: Decimal | None = None
    text_output: Decimal | None = None
    image_output: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """USD. Both None: the route is unpriced."""

    per_million_tokens: TokenPrices | None = None
    per_image: Mapping[str, Decimal | Mapping[str, Decimal]] | None = None
    """Quality -> price, or quality -> size -> price."""

    @property
    def is_known(self) -> bool:
        """Whether anything is known of this route's price."""
        return self.per_million_tokens is not None or self.per_image is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One upstream's offer of a model."""

    upstream: Upstream
    model: str
    """The name the upstream knows."""
    weight: int
    supports: Supports
    prices: Prices


class RoutingPolicy(StrEnum):
    """In which order able and healthy routes are asked."""

    PRIORITY = "priority"
    """As written in the catalog."""
    CHEAPEST = "cheapest"
    """By the estimated price of this very request."""
    FASTEST = "fastest"
    """By measured latency."""
    WEIGHTED = "weighted"
    """At random, in proportion to `weight`."""


class OnUnknownOutcome(StrEnum):
    """What to do after an attempt that may have been paid for."""

    FAIL = "fail"
    """Fail the job: at most one attempt is ever paid for."""
    FAILOVER = "failover"
    """Allow one more attempt that may be paid for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How a model's requests are spread over its routes."""

    policy: RoutingPolicy
    max_attempts: int
    deadline_s: float
    """By then the job is final."""
    on_unknown_outcome: OnUnknownOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A public model name and who can serve it."""

    name: str
    aliases: tuple[str, ...]
    owned_by: str
    created: int
    """Unix seconds, as OpenAI's model list has it."""
    shutdown_date: date | None
    """When its vendor takes it away; None: nothing is announced."""
    capabilities: Capabilities
    tokens: TokenRule | None
    routing: Routing
    routes: tuple[Route, ...]
    deprecation_date: date | None = None
    """Since when the shutdown is announced; None: since a day that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything that the gateway can buy, at one moment. Never changed, only replaced."""

    version: str
    """A digest of the file, recorded on each job."""
    upstreams: Mapping[str, Upstream]
    models: Mapping[str, Model]
    names: Mapping[str, str]
    """Every public name and alias -> the model's name."""

    def model(self, name: str) -> Model | None:
        """Find a model by its public name or an alias; None when there is none."""
        canonical = self.names.get(name)
        return None if canonical is None else self.models[canonical]
