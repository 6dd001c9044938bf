"""List the launches of a batch: how many threads each has, what its code needs, what it may touch. Needs no GPU.

Usage: python -m studies.launch_list [--muons 5000] [--page docs/gpu.md]

One simulated event runs on the CPU with the sizes treated as on CUDA; the code is compiled for `--capability`. In the
page that is given, the table between the two markers is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from studies.common import Seed, detector_in, muon_gun, write_between
from traccc_py.chain import TrackingChain
from traccc_py.device.cuda.compile import CompiledKernel, compile_kernel
from traccc_py.device.cuda.launch import grid_of
from traccc_py.device.cuda.layout import leaves, payload_type
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.kernel import Kernel

BEGIN, END = "<!-- launches: begin -->", "<!-- launches: end -->"
MULTIPROCESSORS = 132  # of the GPU that the grids are given for: H100 and H200
HEADER = (
    "| kernel | runs | indices | work of an index: mean, largest | blocks x threads | registers | shared [B] "
    "| stack [B] | payload [B per index] |\n"
    "|---|---|---|---|---|---|---|---|---|"
)

#: What the length of an index' work goes by, where indices differ: its name, and a column of it after the launch.
WORK: dict[str, tuple[str, Callable[[Any, int], Any]]] = {
    "clusterization_label_cells": ("cells", lambda p, n: (p.end - p.begin)[:n]),
    "clusterization_number_measurements": ("cells", lambda p, n: (p.end - p.begin)[:n]),
    "clusterization_fill_measurements": ("cells", lambda p, n: p.out.n_cells[:n]),
    "grouping_order_members": ("rows of the key", lambda p, n: p.size[p.key[: n * p.width]][p.key[: n * p.width] >= 0]),
    "seeding_doublets_count_tops": ("tops found", lambda p, n: p.out_n_tops[:n]),
    "seeding_doublets_fill_tops": ("tops", lambda p, n: np.diff(p.out_tops.offsets[: n + 1])),
    "seeding_triplets_count_triplets": ("triplets found", lambda p, n: p.out_bottoms.n_triplets[:n]),
    "seeding_triplets_select_triplets": ("triplets", lambda p, n: np.diff(p.offsets[: n + 1])),
    "seeding_thinning_count_agreeing": ("seeds that agree", lambda p, n: p.described.n_agreeing[:n]),
    "seeding_thinning_settle_event": ("seeds", lambda p, n: np.bincount(p.event[: p.counts[p.slot]], minlength=n)),
    "finding_follow_seeds": ("entries", lambda p, n: p.out.n_entries[p.listed[:n] * p.cuts.branches_per_seed]),
    "ambiguity_resolution_resolve_event": (
        "tracks",
        lambda p, n: np.bincount(p.event[: p.counts[p.slot]], minlength=n),
    ),
    "fitting_fit_track": ("entries", lambda p, n: np.diff(p.candidates.entry_offsets)[p.tracks.candidate[:n]]),
}


@dataclass
class Launches:
    """The launches of one kernel in a batch."""

    kernel: Kernel
    kind: Any
    indices: list[int] = field(default_factory=list)
    grids: list[tuple[int, int]] = field(default_factory=list)
    payload_bytes: list[int] = field(default_factory=list)
    work: list[str] = field(default_factory=list)


class NotingDevice(DeferredDevice):
    """A CPU device that notes every launch that has something to run over."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.found: dict[str, Launches] = {}

    def launch(self, kernel: Kernel, extent: Any, payload: Any) -> None:
        """Run `kernel` and note how."""
        one = self.found.setdefault(kernel.name, Launches(kernel, payload_type(payload)))
        capacity = extent if isinstance(extent, int) else extent.capacity
        arrays = {id(leaf): leaf.nbytes for leaf in leaves(payload) if isinstance(leaf, np.ndarray)}
        one.indices.append(self._size(extent))
        one.grids.append(grid_of(kernel, max(1, capacity), MULTIPROCESSORS))
        one.payload_bytes.append(sum(arrays.values()))
        super().launch(kernel, extent, payload)
        one.work.append(described_work(kernel.name, payload, one.indices[-1]))


def described_work(name: str, payload: Any, n: int) -> str:
    """Return what the work of an index goes by, its mean and its largest value."""
    if name not in WORK or n == 0:
        return ""
    unit, column = WORK[name]
    values = np.asarray(column(payload, n))
    return f"{values.mean():.1f}, {values.max():,} {unit}" if len(values) else ""


def note_launches(detector: Any, cells: Any) -> dict[str, Launches]:
    """Return the launches of a batch of one event, by kernel, in the order of their first ones."""
    device = NotingDevice()
    chain = TrackingChain(detector, device=device)
    chain.run(cells)  # buffers grow
    device.found.clear()
    chain.run(cells)
    return device.found


def table(found: dict[str, Launches], compiled: dict[str, CompiledKernel]) -> str:
    """Return the table of launches as Markdown."""
    lines = [HEADER]
    for name, one in found.items():
        code = compiled[name]
        largest = int(np.argmax(one.indices))
        n, (blocks, threads) = one.indices[largest], one.grids[largest]
        per_index = one.payload_bytes[largest] / max(1, n)
        mark = " (a block each)" if one.kernel.cuda is not None and one.kernel.cuda.threads else ""
        needs = f"{code.registers} | {code.shared} | {code.stack}"
        grid = f"{n:,}{mark} | {one.work[largest]} | {blocks:,} x {threads}"
        lines.append(f"| `{name}` | {len(one.indices)} | {grid} | {needs} | {per_index:,.0f} |")
    return "\n".join(lines)


def main(
    muons: Annotated[int, typer.Option(min=1, help="Muons in the event.")] = 5000,
    capability: Annotated[str, typer.Option(help="Compute capability.")] = "9.0",
    page: Annotated[Path | None, typer.Option(help="File with the two markers.")] = None,
    seed: Seed = 5,
) -> None:
    """List the launches of a batch of one event of muons in the Open Data Detector."""
    from traccc_py.simulation.events import simulate_event

    detector = detector_in("odd")
    cells = simulate_event(detector, muon_gun(muons), seed).cells
    found = note_launches(detector, cells)
    major, minor = capability.split(".")
    compiled = {name: compile_kernel(one.kernel, one.kind, (int(major), int(minor))) for name, one in found.items()}
    n_launches = sum(len(one.indices) for one in found.values())
    text = (
        f"`python -m studies.launch_list --muons {muons}`: an event of {muons:,} muons in the Open Data Detector,\n"
        f"{len(cells.channel0):,} cells; {n_launches} launches of {len(found)} kernels; code for sm_{major}{minor},\n"
        f"grids for {MULTIPROCESSORS} multiprocessors. Of a kernel that runs several times the largest launch is\n"
        "given. The last column is the size of all arrays that the launch was given, tables of the detector and spare\n"
        "room included, over the number of indices: what it could move at most if it touched everything once.\n\n"
        f"{table(found, compiled)}"
    )
    if page is None:
        print(text)
        return
    write_between(page, BEGIN, END, text)


if __name__ == "__main__":
    typer.run(main)
