"""Model the time of a batch on an H200 from its PTX, which is executed on the CPU. Needs gcc, and no GPU.

Usage: python -m studies.gpu_model CELLS.csv CELLS.csv:8 ... [--muons 1000] [--set KEY=VALUE] [--page docs/gpu.md]
       python -m studies.gpu_model --muons 1000 --batch 1 --batch 8

Each event is modelled alone or, with a number behind its file, in a batch of so many copies of itself. In the page that
is given, the table between the two markers is replaced. What the model knows is in tests/ptx/model.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from studies.common import Seed, detector_in, muon_gun, write_between
from tests.ptx.device import ptx_device
from tests.ptx.model import LAUNCH, Estimate, estimate, total
from traccc_py.chain import TrackingChain
from traccc_py.cli.settings import assigned
from traccc_py.config import ChainConfig
from traccc_py.data.csv_events import read_cells

BEGIN, END = "<!-- model: begin -->", "<!-- model: end -->"
MEMORY = 16 << 30  # of the device; only what is used is taken [bytes]
US, MS = 1e6, 1e3
MIN_SHARE = 0.01  # of the time; kernels below it are added up
HEADER = (
    "| kernel | launches | us | blocks x threads | busy threads | lanes | issue | latency | longest block "
    "| L2 | HBM | L1 hits | bytes used | registers |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def noted_pairs(device: Any) -> list[tuple[int, int, int]]:
    """Return a list that gets which of the launches, as `tests.ptx.model.total` wants it, run side by side."""
    pairs: list[tuple[int, int, int]] = []
    original, statistics = device.side_by_side, device.ptx.statistics

    def side_by_side(aside: Callable[[], object], function: Callable[[], Any]) -> Any:
        begin, middle = len(statistics), []
        result = original(lambda: (aside(), middle.append(len(statistics))), function)
        pairs.append((begin, middle[0], len(statistics)))
        return result

    device.side_by_side = side_by_side
    return pairs


def modelled(detector: Any, events: list[Any], config: ChainConfig) -> tuple[list[Estimate], Any, Any]:
    """Return the estimates of the launches of a batch, in order, those side by side, and its first event's result."""
    device = ptx_device("run", size=MEMORY)
    chain = TrackingChain(detector, config, device=device)
    chain.run_batch(events)  # buffers grow
    device.ptx.mode, pairs = "count", noted_pairs(device)
    results = chain.run_batch(events)
    return [estimate(one) for one in device.ptx.statistics], pairs, results[0]


def table(estimates: list[Estimate], saved: float) -> str:
    """Return the table of kernels, longest first, as Markdown; times in microseconds; `saved` by two streams [s]."""
    by_kernel: dict[str, list[Estimate]] = {}
    for one in estimates:
        by_kernel.setdefault(one.name, []).append(one)
    whole = sum(one.time for one in estimates)
    lines, rest = [HEADER], []
    for name, launches in sorted(by_kernel.items(), key=lambda item: -sum(one.time for one in item[1])):
        time = sum(one.time for one in launches)
        if time < MIN_SHARE * whole:
            rest.append(time)
            continue
        one = max(launches, key=lambda one: one.time)
        times = " | ".join(f"{US * t:.0f}" for t in (one.issue, one.latency, one.longest, one.l2, one.hbm))
        lines.append(
            f"| `{name}` | {len(launches)} | {US * time:.0f} | {one.grid[0]:,} x {one.grid[1]} | {one.n_busy:,} "
            f"| {100 * one.efficiency:.0f} % | {times} | {100 * one.hits:.0f} % | {100 * one.used:.0f} % "
            f"| {one.registers} |"
        )
    lines.append(f"| {len(rest)} others | | {US * sum(rest):.0f} | | | | | | | | | | | |")
    lines.append(f"| starting them | {len(estimates)} | {US * LAUNCH * len(estimates):.0f} | | | | | | | | | | | |")
    if saved:
        lines.append(f"| side by side | | {-US * saved:.0f} | | | | | | | | | | | |")
    return "\n".join(lines)


def described(name: str, batch: int, estimates: list[Estimate], pairs: list[tuple[int, int, int]], result: Any) -> str:
    """Return what is known of an event's batch, as Markdown."""
    time = total(estimates, pairs)
    each = f", {MS * time / batch:.2f} ms an event" if batch > 1 else ""
    return (
        f"**{name}**, {result.n_cells:,} cells, {len(result.seeds):,} seeds, {len(result.tracks):,} tracks, "
        f"{'alone' if batch == 1 else f'in a batch of {batch}'}: {MS * time:.2f} ms{each}\n\n"
        f"{table(estimates, total(estimates) - time)}"
    )


def with_batch(text: str, batches: list[int]) -> tuple[Path, list[int]]:
    """Return the file, and the sizes of batches: the one behind it, or those for all."""
    path, _, n = text.rpartition(":")
    return (Path(path), [int(n)]) if path and n.isdigit() else (Path(text), batches)


def main(
    cells: Annotated[list[str] | None, typer.Argument(help="CSV files of cells, each with :N for a batch.")] = None,
    muons: Annotated[int | None, typer.Option(min=0, help="Muons of a simulated event, 1000 without files.")] = None,
    batch: Annotated[list[int], typer.Option(min=1, help="Events in a batch; may be repeated.")] = [1],  # noqa: B006
    setting: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    page: Annotated[Path | None, typer.Option(help="File with the two markers.")] = None,
    seed: Seed = 5,
) -> None:
    """Print, or write to a page, what a batch would take on an H200."""
    from traccc_py.simulation.events import simulate_event

    detector = detector_in("odd")
    config = ChainConfig().with_settings({key: value for key, (_, value) in assigned(setting or []).items()})
    events = []
    for text in cells or []:
        path, batches = with_batch(text, batch)
        events.append((path.parent.name, read_cells(path), batches))
    if muons is not None or not events:
        n_muons = 1000 if muons is None else muons
        events.append((f"{n_muons:,} muons", simulate_event(detector, muon_gun(n_muons), seed).cells, batch))
    parts = []
    for name, event, batches in events:
        for n in batches:
            parts.append(described(name, n, *modelled(detector, [event] * n, config)))
            print(parts[-1], "\n", flush=True)
    if page is not None:
        write_between(page, BEGIN, END, "\n\n".join(parts))


if __name__ == "__main__":
    typer.run(main)
