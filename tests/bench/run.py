"""One benchmark run: every subject in turn, round after round, and the ratios between them."""

import os
import platform
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from tests.bench import measures
from tests.bench.measures import Numbers, Sizes
from tests.bench.subjects import Stage, Subject, open_stage

Say = Callable[[str], None]
PARTS: Final = ("latency", "small", "large", "inflight", "tables", "failures")

# Subject by subject within each round, so that whatever else the machine does falls on all of them alike.
_IN_TURN: Final[Mapping[str, Callable[[Stage, Subject, Sizes], Awaitable[Numbers]]]] = {
    "latency": measures.latency,
    "small": measures.small_rate,
    "large": measures.large_rate,
}
_ADDED: Final = ("latency_p50_ms", "latency_p99_ms")
_COMPARED: Final = (
    "small_per_s",
    "small_per_core_s",
    "large_per_s",
    "large_per_core_s",
    "large_mb_per_request",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a run found."""

    figures: Mapping[str, Numbers]
    """Subject -> number by name; the median of the rounds."""
    ratios: Mapping[str, float]
    """`NAME: darkroom / OTHER`, for what is measured of both."""
    machine: Mapping[str, Any]
    sizes: Sizes
    subjects: Mapping[str, str]
    """Subject -> how it ran."""
    skipped: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Write it down."""
        return asdict(self)


async def run(sizes: Sizes, *, parts: Sequence[str] = PARTS, has_peers: bool = True, say: Say) -> Findings:
    """Start everything, measure, and stop it again.

    Raises:
        ServerUnavailable: something did not come up.
    """
    load_before = os.getloadavg()
    async with open_stage(has_peers=has_peers) as stage:
        for sentence in stage.skipped:
            say(sentence)
        figures: dict[str, Numbers] = {subject.name: {} for subject in [stage.direct, *stage.gateways]}
        for part in parts:
            say(f"{part} ...")
            if part in _IN_TURN:
                await _in_turn(stage, sizes, part, figures)
        if "inflight" in parts:
            figures["darkroom"] |= await measures.in_flight(stage, sizes)
        if "failures" in parts:
            for kind in ("error", "silent"):
                for subject in stage.gateways:
                    figures[subject.name] |= await measures.calls_under_failure(stage, subject, sizes, kind)
        if "tables" in parts:
            figures["darkroom"] |= await measures.table_rates(stage, sizes, "empty")
            await measures.fill_tables(stage, sizes.rows)
            figures["darkroom"] |= await measures.table_rates(stage, sizes, "full")
        for subject in stage.gateways:
            for name in _ADDED:
                if name in figures["direct"]:
                    figures[subject.name][f"added_{name}"] = (
                        figures[subject.name][name] - figures["direct"][name]
                    )
        return Findings(
            figures=figures,
            ratios=ratios(figures),
            machine={
                "cpus": os.cpu_count(),
                "system": platform.system(),
                "architecture": platform.machine(),
                "python": platform.python_version(),
                "load_before": load_before[0],
                "load_after": os.getloadavg()[0],
            },
            sizes=sizes,
            subjects={subject.name: subject.versions for subject in stage.gateways},
            skipped=stage.skipped,
        )


def ratios(figures: Mapping[str, Numbers]) -> dict[str, float]:
    """This gateway's numbers by everybody else's."""
    ours = figures["darkroom"]
    return {
        f"{name}: darkroom / {other}": ours[name] / theirs[name]
        for other, theirs in figures.items()
        if other != "darkroom"
        for name in _COMPARED
        if theirs.get(name) and name in ours
    }


async def _in_turn(stage: Stage, sizes: Sizes, part: str, figures: dict[str, Numbers]) -> None:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(sizes.rounds):
        for subject in [stage.direct, *stage.gateways]:
            for name, value in (await _IN_TURN[part](stage, subject, sizes)).items():
                found[subject.name][name].append(value)
    for subject_name, numbers in found.items():
        figures[subject_name] |= {name: median(values) for name, values in numbers.items()}


def table(findings: Findings) -> str:
    """The figures as a Markdown table: a row for each number, a column for each subject."""
    names = list(dict.fromkeys(name for numbers in findings.figures.values() for name in numbers))
    subjects = list(findings.figures)
    lines = [f"| | {' | '.join(subjects)} |", f"| --- |{' ---: |' * len(subjects)}"]
    for name in names:
        cells = [_cell(findings.figures[subject].get(name)) for subject in subjects]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| ratio | |", "| --- | ---: |"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in findings.ratios.items()]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"
