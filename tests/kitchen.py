"""A whole gateway in the test's own loop: real parts, joined as in production, with simulators for vendors."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from app.assembly import Parts, assemble, listening, working
from app.domain.requests import ImageRequest
from app.jobs.service import JobView
from app.jobs.submissions import Submission
from app.settings import Settings
from tests.simulators.server import Simulator

API_KEY = "Q7vJ2mXc9LrT4wYpZ8sKd3FhN6bGa1Ue"
ADMIN_KEY = "h5RzW8kPq2TnV7cXs4JmL9dGy3BfA6Ue"


def catalog_of(
    vendors: Mapping[str, Simulator], *, routing: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A catalog of one model that these vendors sell, in their order."""
    remote = {"therouter": "openai/gpt-image-2", "vercel": "openai/gpt-image-2"}
    upstreams = {
        name: {
            "adapter": name,
            "base_url": vendor.base_url,
            "api_key": f"env:{name.upper()}_TEST_KEY",
            "max_concurrency": 50,
            "timeout_s": 30,
            "options": {"poll_every_s": 0.02},
        }
        for name, vendor in vendors.items()
    }
    routes = [
        {
            "upstream": name,
            "model": remote.get(name, "gpt-image-2"),
            "supports": {"edits": True, "mask": name != "therouter", "stream": name != "therouter"},
            "prices": {"per_image": {"low": 0.006, "medium": 0.053, "high": 0.211}},
        }
        for name in vendors
    ]
    model = {
        "aliases": ["openai/gpt-image-2"],
        "capabilities": {
            "edits": True,
            "sizes": {
                "multiple_of_px": 16,
                "max_edge_px": 3840,
                "max_ratio": 3,
                "min_pixels": 655360,
                "max_pixels": 8294400,
            },
            "qualities": ["auto", "low", "medium", "high"],
            "formats": ["png", "jpeg", "webp"],
            "backgrounds": ["auto", "opaque", "transparent"],
            "moderations": ["auto", "low"],
            "compression": True,
            "max_n": 10,
            "max_prompt_chars": 32000,
            "max_input_images": 16,
            "max_partial_images": 3,
            "mask": True,
        },
        "routing": {"policy": "priority", **(routing or {})},
        "routes": routes,
    }
    return {"version": 1, "upstreams": upstreams, "models": {"gpt-image-2": model}}


@dataclass(frozen=True)
class Kitchen:
    """A running gateway without its HTTP edge."""

    parts: Parts
    team_id: str

    async def order(
        self,
        prompt: str = "a boat",
        *,
        key: str | None = None,
        cancel_after_s: float | None = None,
        **fields: Any,
    ) -> str:
        """Submit a request, and return its job's id."""
        request = ImageRequest(model="gpt-image-2", prompt=prompt, **fields)
        submission = Submission(
            team_id=self.team_id,
            api_key_id="key_test",
            request=request,
            fingerprint=prompt.encode(),
            idempotency_key=key,
            metadata={},
            cancel_after_s=cancel_after_s,
            is_waited_for=False,
        )
        return (await self.parts.jobs.submit(submission)).job.id

    async def served(self, job_id: str, *, within_s: float = 20.0) -> JobView:
        """Wait until a job is final."""
        view = await self.parts.jobs.wait(job_id, self.team_id, timeout_s=within_s, is_caller=False)
        assert view.job.status.is_final, f"{job_id} is {view.job.status} after {within_s} s"
        return view

    async def until(self, job_id: str, condition: Callable[[JobView], bool]) -> JobView:
        """Wait until something can be seen of a job, also after its end."""
        async with self.parts.waiters.watching(job_id, is_caller=False) as changed:
            while True:
                changed.clear()
                view = await self.parts.jobs.view(job_id, self.team_id)
                if condition(view):
                    return view
                await changed.wait()


def write_settings(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    catalog: Mapping[str, Any],
    *,
    database_url: str,
    **settings: str,
) -> Settings:
    """Settings of a gateway whose files are all in `folder`."""
    monkeypatch.chdir(folder)
    path = folder / "gateway.yaml"
    YAML(typ="safe").dump(dict(catalog), path)
    values = {
        "CONFIG": str(path),
        "DATA_DIR": str(folder / "data"),
        "DATABASE_URL": database_url,
        "API_KEY": API_KEY,
        "ADMIN_KEY": ADMIN_KEY,
        "SECRET_KEY": "m4KtB9xQz7LwR2vHs8NcJ5pYd6GfT3aE",
        "ALLOW_NETWORKS": "127.0.0.0/8",
        **settings,
    }
    for name, value in values.items():
        monkeypatch.setenv(f"DARKROOM_{name}", value)
    return Settings.load()


@asynccontextmanager
async def open_kitchen(settings: Settings, *, is_working: bool = True) -> AsyncIterator[Kitchen]:
    """Run a gateway's parts in this loop, and drain them at the end."""
    async with AsyncExitStack() as closing:
        parts = await closing.enter_async_context(assemble(settings))
        await parts.accounts.bootstrap(API_KEY, ADMIN_KEY)
        caller = await parts.accounts.authenticate(API_KEY)
        await closing.enter_async_context(working(parts) if is_working else listening(parts))
        yield Kitchen(parts, caller.team_id)
        if is_working:
            await parts.engine.drain(10.0)
