"""traccc's own events in its toy detector: at least what traccc made of them (docs/traccc_comparison.md)."""

from functools import cache

import numpy as np
import pytest

from studies import toy_samples
from tests.scaled import scaled
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig, read_config
from traccc_py.data.csv_events import read_cells, read_measurements
from traccc_py.edm import FitOutcome, Spacepoints
from traccc_py.geometry import read_detray
from traccc_py.performance.definitions import TRACCC, TruthSelection
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.track_readers import read_event_tracks
from traccc_py.performance.tracks import EventTracks, seeds_of_result, tracks_of_result
from traccc_py.performance.truth import read_truth

SAMPLE = "toy_mu1000_0p5-10GeV"
COUNTED = TruthSelection(min_pt=0.5, min_measurements=5)


@cache
def toy(folder):
    """traccc's toy detector from its files."""
    geometry = folder / "geometry"
    return read_detray(
        geometry / "toy_detector_geometry.json.gz", geometry / "toy_detector_homogeneous_material.json.gz"
    )


@pytest.fixture(scope="module")
def folder(reference_data):
    return reference_data / "traccc_toy"


def summary(folder):
    detector = toy(folder)
    return PerformanceSummary({"all": COUNTED}, float(detector.arrays().b_z), detector_frames(detector), TRACCC)


def seeds_as_hits(result):
    """Seeds as triplets of hits; measurements and hits correspond row by row in this sample."""
    hit = result.measurements.measurement_id[result.spacepoints.measurement_index]
    columns = (result.seeds.bottom_index, result.seeds.middle_index, result.seeds.top_index)
    return set(zip(*(hit[column].tolist() for column in columns), strict=True))


@pytest.fixture(scope="module")
def compared(folder):
    """Numbers of our chain and of traccc's fitted tracks, and the seeds of both, event by event."""
    config = read_config("traccc").with_particle("muon")
    chain = TrackingChain(toy(folder), config, device="cpu")
    ours, theirs, seeds = summary(folder), summary(folder), []
    for number in (0, 1):
        event = read_truth(folder / SAMPLE, number)
        measurements = read_measurements(folder / SAMPLE / f"event{number:09d}-measurements.csv.gz")
        # traccc's seeding example takes the positions of its spacepoints from the hits
        rows = np.arange(len(measurements), dtype=np.int32)
        result = chain.run((measurements, Spacepoints(event.hits.position.astype(np.float32), rows)))
        made = read_event_tracks(folder / SAMPLE / "traccc_ckf_ar_kf", "fitted", folder / SAMPLE, event)
        order = np.argsort(result.measurements.measurement_id)
        assert np.array_equal(result.measurements.measurement_id[order], rows)
        found = tracks_of_result(result)
        found.measurement_index = result.measurements.measurement_id[found.measurement_index]
        ours.add(event, EventTracks(made.links, found, None))
        theirs.add(event, made)
        table = np.genfromtxt(
            folder / SAMPLE / "traccc_ckf_ar_kf" / f"event{number:09d}-seeds.csv.gz", delimiter=",", names=True
        )
        hits = [table[name].astype(int).tolist() for name in ("bottom_hit", "middle_hit", "top_hit")]
        seeds.append((seeds_as_hits(result), set(zip(*hits, strict=True))))
        assert len(seeds_of_result(result).offsets) == len(result.seeds) + 1
    return ours.as_dict(), theirs.as_dict(), seeds


def test_each_seed_of_traccc_is_found(compared):
    for ours, theirs in compared[2]:
        assert len(theirs) > 4000
        assert theirs <= ours
        assert len(ours - theirs) < 0.005 * len(theirs)


def test_more_is_found_with_fewer_fakes_and_duplicates(compared):
    ours, theirs = (numbers["tracks"]["all"] for numbers in compared[:2])
    assert ours["n_particles"] == theirs["n_particles"] == 1197
    assert theirs["efficiency"] == pytest.approx(0.9799, abs=1e-4)
    assert ours["efficiency"] >= theirs["efficiency"]
    assert ours["n_fakes"] <= theirs["n_fakes"]
    assert ours["n_duplicates"] <= theirs["n_duplicates"]


def test_all_fits_succeed(compared):
    ours, theirs = (numbers["fit_outcomes"] for numbers in compared[:2])
    success = FitOutcome.SUCCESS.name
    assert ours[success] >= 0.995 * sum(ours.values())
    assert theirs[success] == pytest.approx(0.863 * sum(theirs.values()), rel=0.005)


def test_pulls_are_standard_normal(compared):
    for name, pull in compared[0]["first_state_pulls"].items():
        if "sigma" in pull:
            assert abs(pull["mean"]) < 0.05, name
            assert abs(pull["sigma"] - 1) < 0.05, name


def of_default_settings(detector, given):
    return toy_samples.reconstruct(detector, ChainConfig().with_particle("muon"), given, threads=2)


@pytest.mark.parametrize("name", toy_samples.SAMPLES)
@pytest.mark.parametrize("kind", ["measurements", "cells"])
def test_default_settings_find_more_than_traccc(folder, name, kind):
    """Settings follow from the detector of the files, windows from the errors of 50 um or of the clusters."""
    theirs = toy_samples.of_traccc(folder / name, toy(folder))
    given = list(toy_samples.of_files(folder / name, kind))
    ours = of_default_settings(toy_samples.toy_of_files(folder)[kind], given)
    assert ours["efficiency"] >= max(theirs["efficiency"], 99.5)
    assert ours["efficiency_3"] >= max(theirs["efficiency_3"], 99.5)
    assert ours["fakes"] <= (theirs["fakes"] if kind == "measurements" else 0.32)  # traccc's from cells, with 3:3
    assert ours["duplicates"] == 0


def test_default_settings_find_muons_of_a_dense_event_and_of_a_larger_detector(folder):
    detector = toy(folder)
    dense = of_default_settings(detector, [toy_samples.simulated(detector, 5000, 1)])
    assert dense["efficiency"] >= 99.5
    assert dense["efficiency_3"] >= 99.5
    assert dense["fakes"] < 0.8
    for factor, most_fakes in ((2.5, 0.2), (0.5, 1.2)):  # the same muons: in the smaller one they are five times denser
        other = scaled(detector, factor)
        found = of_default_settings(other, [toy_samples.simulated(other, 1000, 1)])
        assert min(found["efficiency"], found["efficiency_3"]) >= 99.5
        assert found["fakes"] <= most_fakes


def test_measurements_from_cells_are_those_of_the_hits(folder):
    """Cells were made of the true hits, with 50 um pixels: as many measurements as clusters, each on its hit."""
    geometry = folder / "geometry"
    detector = read_detray(
        geometry / "actsid_toy_detector_geometry.json.gz",
        geometry / "toy_detector_homogeneous_material.json.gz",
        digitization=geometry / "actsid_toy_digi_config.json.gz",
        conditions=geometry / "actsid_toy_conditions_config.json.gz",
    )
    chain, frames = TrackingChain(detector, device="cpu"), detector_frames(detector)
    for number in (0, 1):
        event = read_truth(folder / SAMPLE, number)
        cells = read_cells(folder / SAMPLE / f"event{number:09d}-cells.csv.gz")
        made = chain.run(cells).measurements
        first = made.cell_indices[made.cell_offsets[:-1]]
        of_cell = cells.measurement_id
        is_single = np.array(
            [len(set(of_cell[made.cell_indices[a:b]])) == 1 for a, b in zip(made.cell_offsets, made.cell_offsets[1:])]  # noqa: B905
        )
        hit = of_cell[first]
        assert len(made) <= len(np.unique(of_cell))
        assert is_single.mean() > 0.99  # the others are hits whose clusters touch
        assert len(np.unique(hit[is_single])) > 0.985 * len(event.hits)
        truth = frames.local_positions(made.geometry_id[is_single], event.hits.position[hit[is_single]])
        residual = made.local_position[is_single] - truth
        assert np.abs(np.median(residual, axis=0)).max() < 0.001
        assert np.quantile(np.abs(residual), 0.99) < 0.030  # half a pixel and a little
