"""The PTX of the chain against the CPU device on larger events: minutes each, with `make test-all`.

Threads in their order, shuffled and in random turns, events alone and in batches, launched and replayed as graphs.
"""

import numpy as np
import pytest

from studies.common import muon_gun
from studies.gpu_model import main as gpu_model
from tests.comparison import compare
from tests.integration.small_events import columns
from tests.ptx.device import ptx_device
from tests.ptx.library import WHY_NOT
from tests.ptx.wanted import lists_of_measurements, unwanted
from traccc_py.chain import TrackingChain
from traccc_py.data.csv_events import read_cells
from traccc_py.data.sample import sample_event_path
from traccc_py.geometry import build_detector

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

MEMORY = 3 << 30  # [bytes]
MEMORY_OF_MU200 = 8 << 30


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


def muons(detector, n, seed):
    from traccc_py.simulation.events import simulate_event

    return simulate_event(detector, muon_gun(n), seed).cells


def collisions(detector, pileup):
    pytest.importorskip("pythia8mc", reason="pythia8mc is not installed: pip install traccc-py[simulation]")
    from traccc_py.simulation.events import simulate_event
    from traccc_py.simulation.generators.pileup import CollisionConfig, CollisionGenerator
    from traccc_py.simulation.settings import TransportConfig

    source = CollisionGenerator(CollisionConfig("ttbar", pileup=pileup), float(detector.arrays().b_z))
    return simulate_event(detector, source, 11, config=TransportConfig.of_collisions()).cells


@pytest.fixture(scope="module")
def thousand_muons(detector):
    return muons(detector, 1000, 3)


def run(detector, cells, mode="run", seed=0, size=MEMORY):
    device = ptx_device(mode, seed=seed, size=size)
    result = TrackingChain(detector, device=device).run(cells)
    assert device.ptx.statuses == {}
    assert unwanted(device.ptx.problems) == []
    return result


def assert_same_bits(found, expected):
    expected = columns(expected)
    for name, column in columns(found).items():
        np.testing.assert_array_equal(column, expected[name], err_msg=name)


def assert_same_tracks(found, expected):
    assert compare(found, expected).is_good
    assert sorted(lists_of_measurements(found)) == sorted(lists_of_measurements(expected))


@pytest.mark.parametrize(("mode", "seed"), [("run", 1), ("mix", 1), ("check", 5)])
def test_a_thousand_muons_in_any_order(detector, thousand_muons, mode, seed):
    expected = TrackingChain(detector, device="cpu").run(thousand_muons)
    found = run(detector, thousand_muons)
    assert_same_tracks(found, expected)
    assert_same_bits(run(detector, thousand_muons, mode, seed), found)


@pytest.mark.filterwarnings("ignore")  # cells stand in the file twice
def test_the_real_event(detector, reference_data):
    cells = read_cells(reference_data / "odd_real" / "odd_geant4_10muon_50GeV_event000000000-cells.csv")
    expected = TrackingChain(detector, device="cpu").run(cells)
    found = run(detector, cells, "check", 3)
    assert_same_tracks(found, expected)
    assert_same_bits(run(detector, cells), found)


def test_collisions_with_20_interactions(detector):
    cells = collisions(detector, 20)
    expected = TrackingChain(detector, device="cpu").run(cells)
    found = run(detector, cells)
    assert_same_tracks(found, expected)
    assert_same_bits(run(detector, cells, "check", 2), found)


def test_collisions_with_200_interactions(detector):
    """A few of the thousands of tracks have another list: a cut is met by rounding."""
    cells = collisions(detector, 200)
    expected = TrackingChain(detector, device="cpu").run(cells)
    found = run(detector, cells, size=MEMORY_OF_MU200)
    assert compare(found, expected).is_good
    assert_same_bits(run(detector, cells, "run", 4, size=MEMORY_OF_MU200), found)


def test_batches_and_graphs_give_what_events_give_alone(detector):
    events = [read_cells(sample_event_path()), muons(detector, 60, 1), muons(detector, 200, 2)]
    alone = [run(detector, cells) for cells in events]
    for seed in (0, 7):
        device = ptx_device("run", seed=seed, size=MEMORY, uses_graphs=True)
        chain = TrackingChain(detector, device=device)
        for _ in range(3):  # the first, one that is recorded, one that is replayed
            for found, expected in zip(chain.run_batch(events), alone, strict=True):
                assert_same_bits(found, expected)
        for (found,), expected in zip(chain.run_batches([[cells] for cells in events]), alone, strict=True):
            assert_same_bits(found, expected)


def test_the_model_names_what_takes_the_time(capsys, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- model: begin -->\nold\n<!-- model: end -->\nafter\n")
    gpu_model(cells=None, muons=20, batch=[1, 2], page=page)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    assert sum("`fitting_fit_track`" in line for line in lines) == 2
    assert "in a batch of 2" in page.read_text()
