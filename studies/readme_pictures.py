"""Draw the pictures of the README: an event in the Open Data Detector.

Usage: python -m studies.readme_pictures [--output docs/pictures]

Each picture keeps what it shows in its text "facts"; a test compares it with what the code makes now.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from traccc_py import TrackingChain, read_cells
from traccc_py.data.sample import sample_event_path
from traccc_py.performance.views import draw_event

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"


def event_facts(chain: Any, result: Any) -> str:
    """Return what the picture of the bundled event depends on."""
    return json.dumps({"detector": chain.detector.fingerprint, **{k: int(n) for k, n in result.counts().items()}})


def main(output: Annotated[Path, typer.Option(help="Folder of the pictures.")] = PICTURES) -> None:
    """Draw the pictures."""
    chain = TrackingChain("odd", device="cpu")
    result = chain.run(read_cells(sample_event_path()))
    output.mkdir(parents=True, exist_ok=True)
    title = "20 simulated muons in the Open Data Detector, reconstructed"
    draw_event(
        result, chain.detector, output / "event.png", title=title, facts={"facts": event_facts(chain, result)}, dpi=90
    )
    print(f"{output / 'event.png'}")


if __name__ == "__main__":
    typer.run(main)
