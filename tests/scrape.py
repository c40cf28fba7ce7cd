"""Reads metrics as Prometheus does."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.kitchen import ADMIN_KEY

AS_ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}


@dataclass(frozen=True)
class Scrape:
    """What one scrape told."""

    text: str

    def families(self) -> list[Metric]:
        """Every family, by its name in the text."""
        return list(text_string_to_metric_families(self.text))

    def labels(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The labels of every sample, with its family's name."""
        for family in self.families():
            for sample in family.samples:
                yield family.name, sample.labels

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of this name that have at least these labels; None when there is none."""
        found = [
            sample.value
            for family in self.families()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


async def scrape(client: httpx2.AsyncClient) -> Scrape:
    """Look at the metrics with the admin key."""
    answer = await client.get("/metrics", headers=AS_ADMIN)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(answer.text)


async def scrape_until(client: httpx2.AsyncClient, name: str, **labels: str) -> Scrape:
    """Look until something is counted under this name and these labels."""
    async with asyncio.timeout(30):
        while True:
            found = await scrape(client)
            if found.value(name, **labels):
                return found
            await asyncio.sleep(0.05)
