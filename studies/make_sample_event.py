"""Make the sample event of the package: 20 simulated muons in the Open Data Detector, cells and truth.

Usage: python -m studies.make_sample_event
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from traccc_py.data.sample import SAMPLE_DIRECTORY
from traccc_py.geometry import build_detector
from traccc_py.simulation.events import simulate_event, write_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

SEED = 20
GUN = ParticleGunConfig(
    n_particles=20,
    momentum=(1.0, 50.0),
    momentum_distribution="log",
    eta=(-2.5, 2.5),
    vertex_sigma=(0.0125, 0.0125, 55.0),
)


def write_sample(directory: Path = SAMPLE_DIRECTORY) -> list[Path]:
    """Simulate the event and write its files.

    Parameters
    ----------
    directory : Path, optional
        Folder; by default the one in the package.

    Returns
    -------
    list of Path
        The files.
    """
    detector = build_detector("odd")
    event = simulate_event(detector, GUN, SEED)
    return write_event(directory, detector, event, compress=True)


def main(
    folder: Annotated[Path, typer.Option(help="Where the files go.", file_okay=False)] = SAMPLE_DIRECTORY,
) -> None:
    """Make the sample event of the package."""
    for path in write_sample(folder):
        print(f"{path} ({path.stat().st_size / 1000:.1f} kB)")


if __name__ == "__main__":
    typer.run(main)
