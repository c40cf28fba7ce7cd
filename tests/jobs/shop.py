"""The jobs' front door on a real database, with one model for each `on_unknown_outcome`."""

import random
from dataclasses import replace
from typing import Any

from app.assets.gate import StorageGate
from app.assets.storage import FileStorage
from app.catalog.current import CurrentCatalog
from app.catalog.entries import OnUnknownOutcome
from app.catalog.keys import Keyring
from app.db.engine import Database
from app.domain.requests import ImageRequest
from app.jobs.admission import Admission
from app.jobs.routes import Routes
from app.jobs.service import JobService
from app.jobs.submissions import Submission, Submissions
from app.jobs.transitions import Transitions
from app.jobs.waiting import Waiters
from app.kit.events import LocalEvents
from tests.catalog.shipped import a_model, shipped

CAREFUL = "gpt-image-2"
"""Ends a job whose outcome is unknown."""
EAGER = "gpt-image-2-failover"
"""Buys once more."""


class Silent:
    """A doorbell for nobody."""

    def ring(self, _job_id: str) -> None:
        """Do nothing: these tests claim by hand."""


def front_door(database: Database, *, result_ttl_s: float = 86400.0) -> JobService:
    """What the edges call, without a worker behind it."""
    careful = a_model(CAREFUL)
    routing = replace(careful.routing, on_unknown_outcome=OnUnknownOutcome.FAILOVER)
    eager = replace(careful, name=EAGER, aliases=(), routing=routing)
    models = {CAREFUL: careful, EAGER: eager}
    catalog = replace(shipped(), models=models, names={name: name for name in models})
    routes = Routes(database, Keyring({"OPENAI_API_KEY": "made-up"}), random.Random(0))
    events = LocalEvents()
    submissions = Submissions(
        database,
        Admission(CurrentCatalog(catalog), routes),
        StorageGate(_Endless()),
        Silent(),
        result_ttl_s=result_ttl_s,
    )
    transitions = Transitions(database, lease_s=30.0)
    return JobService(database, submissions, transitions, Waiters(database, events), Silent(), events)


class _Endless(FileStorage):
    """Storage that never fills, and that nothing is put into."""

    def __init__(self) -> None:
        pass

    async def check(self) -> None:
        """Find room."""


def submission(team_id: str, prompt: str = "a boat", **fields: Any) -> Submission:
    """A call for pictures; `model` and `n` go into the request, the rest is about it."""
    model, n = fields.pop("model", CAREFUL), fields.pop("n", 1)
    values: dict[str, Any] = {
        "team_id": team_id,
        "api_key_id": "key_1",
        "request": ImageRequest(model=model, prompt=prompt, n=n),
        "fingerprint": f"{model} {prompt} {n}".encode(),
        "metadata": {},
        "is_waited_for": True,
    }
    return Submission(**{**values, **fields})
