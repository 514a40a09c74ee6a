"""`python -m benchmarks`: run the measurements, print the tables, write docs/benchmarks.md."""

import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType

import click
from driftwatch.localcluster import LocalClusterError, Progress, console_progress, ensure_binaries
from driftwatch.tools import ToolError
from rich.console import Console

from benchmarks import events, latency, machine, polls, report
from benchmarks.children import ROOT
from benchmarks.churn import churn
from benchmarks.figures import Results
from benchmarks.garbage import garbage
from benchmarks.plan import FULL, PARTS, QUICK, Plan
from benchmarks.rendering import rendering
from benchmarks.room import Room
from benchmarks.scale import scale
from benchmarks.storm import storm
from benchmarks.syncing import syncing

PAGE = ROOT / "docs" / "benchmarks.md"
APART = {"scale": scale, "rendering": rendering, "sync": syncing, "storm": storm, "churn": churn}
ROOM_PARTS = frozenset(PARTS) - {"polls", "garbage", "items", *APART}


@click.command()
@click.option("--quick", is_flag=True, help="A smoke test of about a minute with small numbers; writes nothing.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Measure only this; may be given more than once.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="Folder for the clusters and logs, kept afterwards. Without it: a temporary one.",
)
@click.option("--no-write", is_flag=True, help="Leave docs/benchmarks.md as it is.")
def main(quick: bool, only: tuple[str, ...], directory: Path | None, no_write: bool) -> None:
    """Measure driftwatch against an ideal healer and a toy loop, on this machine, in this run.

    Exit status: 0 when all was measured, whether or not budgets are met; 1 when something failed.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    chosen, plan = set(only or PARTS), QUICK if quick else FULL
    load_before, began = machine.load(), time.monotonic()
    results = Results()
    try:
        with ExitStack() as stack:
            progress = stack.enter_context(console_progress())
            binaries = ensure_binaries(progress)
            _run(_folder(stack, directory), progress, plan, chosen, results)
    except (LocalClusterError, ToolError) as error:
        sys.exit(f"benchmarks: {error}")
    except KeyboardInterrupt:
        report.show(Console(), results)
        sys.exit("benchmarks: interrupted; everything is stopped, and above is what had been measured")
    report.show(Console(), results)
    print(f"{time.monotonic() - began:.0f} s; load before {load_before:.2f}, after {machine.load():.2f}")
    if not (quick or no_write or only):
        page = report.markdown(results, machine.facts(binaries), (load_before, machine.load()))
        PAGE.write_text(page, encoding="utf-8")
        print(f"written: {PAGE.relative_to(ROOT)}")
    if results.failed:
        sys.exit("benchmarks: not measured: " + "; ".join(f"{name}: {why}" for name, why in results.failed.items()))


def _run(folder: Path, progress: Progress, plan: Plan, chosen: set[str], results: Results) -> None:
    """Measure part by part. A failed part does not stop the others: half an hour of results must not be lost."""
    parts: dict[str, Callable[[], None]] = {
        "contest": partial(_fights, folder, progress, plan, chosen, results),
        "polls": partial(polls.polls, folder, plan, results),
        "garbage": partial(garbage, results),
        "items": partial(events.items, results),
        **{name: partial(part, folder, progress, plan, results) for name, part in APART.items()},
    }
    wanted = chosen | ({"contest"} if chosen & ROOM_PARTS else set())
    for name, measure in parts.items():
        if name not in wanted:
            continue
        try:
            measure()
        except Exception as error:  # noqa: BLE001  told now and at the end
            traceback.print_exc()
            results.failed[name] = str(error) or type(error).__name__


def _fights(folder: Path, progress: Progress, plan: Plan, chosen: set[str], results: Results) -> None:
    """Run the measurements that share one control plane with all contenders."""
    with Room(folder / "contest", progress, plan.burst, [latency.DAEMON, latency.TOY]) as room:
        daemon = latency.start_daemon(room, plan.burst)
        if "single" in chosen:
            latency.singles(room, plan, results)
        if "burst" in chosen:
            latency.bursts(room, daemon, plan, results)
        if "noise" in chosen:
            events.noise(room, daemon, plan, results)
        if "decode" in chosen:
            events.decode(room, results)
        if "toy" in chosen:
            latency.toy(room, plan, results)


def _folder(stack: ExitStack, directory: Path | None) -> Path:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        return directory.absolute()
    folder = Path(tempfile.mkdtemp(prefix="driftwatch-bench-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
