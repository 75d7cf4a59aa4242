"""`make bench`: scenarios of messages through a whole system of their own. Prints what they find, and writes it with its conditions to
docs/benchmarks/<scenario>.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deploy import REPOSITORY
from tests.load.ground import Ground
from tests.load.plan import QUICK, Plan
from tests.load.report import Page, machine
from tests.load.scenarios import (
    accept,
    backlog,
    bulk,
    dispatcher,
    growth,
    kannel,
    latency,
    mixed,
    pages,
    profile,
    replicas,
    schedule,
    single,
)

Pages = Mapping[str, Page]
"""By name of the file, without its ending, below the directory of benchmarks."""
Measure = Callable[[Ground], Awaitable[Page]]

# Those that share a system come first.
SCENARIOS: Mapping[str, Measure] = {
    "single": single.measure,
    "bulk": bulk.measure,
    "mixed": mixed.measure,
    "latency": latency.measure,
    "accept": accept.measure,
    "replicas": replicas.measure,
    "growth": growth.measure,
    "backlog": backlog.measure,
    "dispatcher": dispatcher.measure,
    "pages": pages.measure,
    "schedule": schedule.measure,
    "kannel": kannel.measure,
}
PROFILE = "profile"
DEFAULT = ("single", "bulk", "mixed", "latency")
DIRECTORY = REPOSITORY / "docs" / "benchmarks"


async def measure(names: Sequence[str], plan: Plan, output: Path | None) -> list[str]:
    """Run these scenarios; give those that failed, after all others had their turn. A page is written as soon as it is there."""
    failed: list[str] = []
    before: str | None = None
    ground = Ground(plan, lambda line: print(line, flush=True))
    try:
        for name in sorted(names, key=[*SCENARIOS, PROFILE].index):
            print(f"\n=== {name}", flush=True)
            conditions, before = machine(before), name
            try:
                for file, page in (await _pages(name, ground)).items():
                    _put(file, replace(page, machine=conditions), output)
            except Exception:
                traceback.print_exc()
                failed.append(name)
                await ground.close()  # who knows what state it is in
    finally:
        await ground.close()
    return failed


async def _pages(name: str, ground: Ground) -> Pages:
    if name == PROFILE:
        return {f"profiles/{process}": page for process, page in (await profile.measure(ground)).items()}
    return {name: await SCENARIOS[name](ground)}


def _put(file: str, page: Page, output: Path | None) -> None:
    if not file.startswith("profiles/"):
        print(f"\n{page}", flush=True)
    if output is not None:
        path = output / f"{file}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(page))


def main() -> None:
    everything = [*SCENARIOS, PROFILE]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(everything)}; by default {', '.join(DEFAULT)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="shows that they work, with so few messages that figures say nothing"
    )
    parser.add_argument(
        "--output", type=Path, help="where pages are written; docs/benchmarks by default, nowhere if quick"
    )
    given = parser.parse_args()
    names = [name for each in given.scenarios for name in each.split(",") if name] or list(DEFAULT)
    if unknown := set(names) - set(everything):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(everything)}")
    output: Path | None = given.output or (None if given.quick else DIRECTORY)
    if failed := asyncio.run(measure(names, QUICK if given.quick else Plan(), output)):
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
