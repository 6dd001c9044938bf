"""Tracks in files against truth in files: traccc's own tracks give the numbers published for them."""

import gzip
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.reference.performance import score
from traccc_py.cli.app import app
from traccc_py.data.csv_events import read_cells, read_measurement_hit_map, write_measurement_hit_map
from traccc_py.data.track_files import read_track_states, read_tracks, write_event_result
from traccc_py.edm import FitOutcome
from traccc_py.errors import InputDataError
from traccc_py.performance.definitions import ACTS, TRACCC, TruthSelection
from traccc_py.performance.frames import SurfaceFrames
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.track_readers import read_event_tracks, tracks_kind
from traccc_py.performance.truth import read_truth
from traccc_py.units import T

EVENTS = {"toy_mu1000_0p5-10GeV": 2, "toy_mu10_10GeV": 10}
MU1000, MU10 = EVENTS
ANYWHERE = {"max_eta": np.inf, "min_z": -np.inf, "max_z": np.inf, "max_r": np.inf}
#: The cuts of the published numbers.
COMMON = TruthSelection(min_pt=0.5, min_measurements=5, **ANYWHERE)


@pytest.fixture(scope="module")
def toy(reference_data):
    return reference_data / "traccc_toy"


@pytest.fixture(scope="module")
def frames(toy):
    """Frames of traccc's toy detector, by detray's identifiers."""
    with gzip.open(toy / "geometry" / "toy_detector_geometry.json.gz") as file:
        volumes = json.load(file)["data"]["volumes"]
    surfaces = sorted((s for v in volumes for s in v["surfaces"] if s["type"] == 1), key=lambda s: s["identifier"])
    axes = np.array([s["transform"]["rotation"] for s in surfaces]).reshape(-1, 3, 3)
    ids = np.array([s["identifier"] for s in surfaces], np.uint64)
    return SurfaceFrames(ids, np.array([s["transform"]["translation"] for s in surfaces]), axes[:, 0], axes[:, 1])


def summarise(toy, sample, kind, frames=None, definition=TRACCC, **selections):
    summary = PerformanceSummary(selections or {"common": COMMON}, 2 * T, frames, definition)
    for number in range(EVENTS[sample]):
        event = read_truth(toy / sample, number)
        summary.add(event, read_event_tracks(toy / sample / "traccc_ckf_ar_kf", kind, toy / sample, event))
    return summary.as_dict()


@pytest.mark.parametrize(
    ("sample", "kind", "efficiency", "fakes"),
    [
        (MU1000, "found", 0.9808, 0.109),
        (MU1000, "resolved", 0.9799, 0.0022),
        (MU10, "found", 1.0, None),
        (MU10, "resolved", 1.0, None),
    ],
)
def test_traccc_tracks_give_the_published_numbers(toy, sample, kind, efficiency, fakes):
    counts = summarise(toy, sample, kind)["tracks"]["common"]
    assert round(counts["efficiency"], 4) == efficiency
    if fakes is not None:
        assert round(counts["fakes_per_group"], 4 if fakes < 0.1 else 3) == fakes


def test_traccc_cuts_give_what_its_writer_says(toy):
    """Its writer said 98.1 % for three events, of which two are here; 97.8 % after ambiguity resolution; 100 %."""
    for sample, kind, published in ((MU1000, "found", 0.981), (MU1000, "resolved", 0.978), (MU10, "found", 1.0)):
        counts = summarise(toy, sample, kind, default=TruthSelection())["tracks"]["default"]
        low, high = counts["efficiency_low"], counts["efficiency_high"]
        assert low - (high - low) < published < high + (high - low), (sample, kind, counts)


def test_traccc_fits_have_the_published_pulls(toy, frames):
    numbers = summarise(toy, MU1000, "fitted", frames)
    pulls = numbers["first_state_pulls"]
    for name, width in {"loc0": 1.0, "loc1": 1.0, "phi": 1.0, "theta": 0.99, "qop": 0.99}.items():
        assert pulls[name]["sigma"] == pytest.approx(width, abs=0.025), name
        assert abs(pulls[name]["mean"]) < 3 * pulls[name]["mean_error"], name
    assert "qop_t" not in pulls  # the files have no covariance of theta and q/p
    assert set(numbers["first_state_residuals"]) >= {"qop_t", "qop_z"}
    assert numbers["perigee_pulls"] == {}
    outcomes = numbers["fit_outcomes"]
    assert max(outcomes, key=outcomes.get) == "SUCCESS"
    assert outcomes["FORWARD_PROPAGATION"] > 0.7 * (sum(outcomes.values()) - outcomes["SUCCESS"])
    assert numbers["p_values"]["mean"] == pytest.approx(0.5, abs=0.03)


def test_acts_divides_by_tracks(toy):
    traccc = summarise(toy, MU1000, "found")["tracks"]["common"]
    acts = summarise(toy, MU1000, "found", definition=ACTS)["tracks"]["common"]
    assert acts["efficiency"] == traccc["efficiency"]
    assert acts["duplicates_per_group"] == traccc["duplicates_per_group"]
    assert 0 < acts["fakes_per_group"] < traccc["fakes_per_group"]  # of selected particles alone


def test_counts_of_files_equal_those_of_plain_python(toy):
    sample = toy / MU1000
    event = read_truth(sample, 0)
    found = read_event_tracks(sample / "traccc_ckf_ar_kf", "found", sample, event)
    summary = PerformanceSummary({"all": TruthSelection(min_pt=0.0, **ANYWHERE)}, 2 * T)
    summary.add(event, found)
    pairs = read_measurement_hit_map(sample / "event000000000-measurement-simhit-map.csv.gz")
    particles = [[] for _ in range(1 + pairs.measurement_id.max())]
    for measurement, hit in zip(pairs.measurement_id, pairs.hit_id, strict=True):
        particles[measurement].append(int(event.particle_of_hit[hit]))
    lists = np.split(found.tracks.measurement_index, found.tracks.offsets[1:-1])
    n_measurements = np.bincount(event.particle_of_hit, minlength=len(event.particles))
    expected = score([t.tolist() for t in lists], particles, n_measurements >= 3)
    del expected["fakes_of_particle"]
    counts = summary.as_dict()["tracks"]["all"]
    assert {name: counts[name] for name in expected} == expected


def call(*arguments):
    return CliRunner().invoke(app, ["performance", *(str(a) for a in arguments)])


def test_command_compares_two_folders(toy, tmp_path):
    tracks = toy / MU10 / "traccc_ckf_ar_kf"
    path = tmp_path / "numbers.json"
    result = call(
        "--detector", "toy", "--truth", toy / MU10, "--tracks", tracks, "--tracks-kind", "resolved",
        "--compare", f"before={tracks}:found", "--compare", f"seeds={tracks}:seeds", "--min-measurements", 5,
        "--definition", "acts", "--events", 3, "--per-bin", "--json", path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in ("definition acts", "traccc resolved: selected", "before: selected", ">= 0.5", "Efficiency versus eta"):
        assert text in result.stdout, text
    written = json.loads(path.read_text())
    assert list(written["results"]) == ["traccc resolved", "before", "seeds"]
    assert {r["n_events"] for r in written["results"].values()} == {3}
    assert "tracks" not in written["results"]["seeds"]
    assert written["results"]["seeds"]["seeds"]["selected"]["efficiency"] == 1.0
    assert written["results"]["before"]["tracks"]["selected"]["duplicates_per_group"] > 0.3
    assert written["results"]["traccc resolved"]["selections"]["selected"]["min_measurements"] == 5


def test_command_refuses_what_it_cannot_use(toy, tmp_path):
    truth, tracks = toy / MU10, toy / MU10 / "traccc_ckf_ar_kf"
    for arguments, words in (
        (["--truth", truth], "belong together"),
        (["--tracks", tracks], "belong together"),
        (["--truth", truth, "--tracks", tmp_path], "has no file event*-tracks.csv"),
        (["--truth", truth, "--tracks", tracks, "--tracks-kind", "own"], "has no file event*-tracks.csv"),
        (["--truth", tmp_path, "--tracks", tracks], "has no file event*-hits.csv"),
        (["--truth", truth, "--tracks", tracks, "--compare", "nonsense"], "expected label=folder"),
        (["--truth", truth, "--tracks", tracks, "--compare", f"traccc fitted={tracks}"], "appears more than once"),
        (["--truth", truth, "--tracks", tracks, "--definition", "atlas"], 'expected one of "traccc", "acts"'),
        (["--truth", truth, "--tracks", tracks, "--truth-side", "inside"], 'expected one of "outgoing", "incoming"'),
        (["--truth", truth, "--tracks", tracks, "--matching-ratio", 2], "expected a finite number from 0 to 1"),
    ):
        result = call("--detector", "telescope", *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert words in " ".join(result.stderr.split()), (arguments, result.stderr)


@pytest.fixture
def copied(toy, tmp_path):
    """Truth and tracks of one event in one folder."""
    for path in [*(toy / MU10).glob("event000000000-*"), *(toy / MU10 / "traccc_ckf_ar_kf").glob("event000000000-*")]:
        shutil.copy(path, tmp_path)
    return tmp_path


def edit(folder, kind, change):
    path = folder / f"event000000000-{kind}.csv.gz"
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()).decode("latin-1")).encode("latin-1")))


def test_wrong_hit_ids_are_named(copied):
    assert tracks_kind(copied) == "fitted"
    event = read_truth(copied, 0)
    text = gzip.decompress((copied / "event000000000-found_tracks.csv.gz").read_bytes()).decode()
    last = text.splitlines()[1].rpartition(" ")[2]
    edit(copied, "found_tracks", lambda t: t.replace(f" {last}\n", " 99999\n", 1))
    with pytest.raises(InputDataError, match=r"found_tracks.csv.gz, line 2: column hit_ids is '99999'; expected a row"):
        read_event_tracks(copied, "found", copied, event)
    edit(copied, "found_tracks", lambda t: t.replace(" 99999\n", "\n", 1))
    with pytest.raises(InputDataError, match=r"line 2: column hit_ids is .*; expected \d+ ids, as n_states says"):
        read_event_tracks(copied, "found", copied, event)


def test_repeated_particles_are_refused(copied):
    edit(copied, "particles_initial", lambda t: t + t.splitlines()[1] + "\n")
    with pytest.raises(InputDataError, match="appears more than once"):
        read_truth(copied, 0)


def test_hits_of_unknown_particles_have_no_particle(copied):
    before = read_truth(copied, 0)
    edit(copied, "particles_initial", lambda t: "\n".join([*t.splitlines()[:1], *t.splitlines()[2:], ""]))
    after = read_truth(copied, 0)
    assert len(after.particles) == len(before.particles) - 1
    np.testing.assert_array_equal(after.particle_of_hit, before.particle_of_hit - 1)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A simulated event, its truth files, and files of its reconstruction."""
    from traccc_py.chain import TrackingChain
    from traccc_py.config import ChainConfig
    from traccc_py.geometry import build_detector
    from traccc_py.simulation.events import simulate_event, write_event
    from traccc_py.simulation.generators.gun import ParticleGunConfig

    detector = build_detector("odd")
    gun = ParticleGunConfig(n_particles=60, momentum=(1.0, 10.0))
    event = simulate_event(detector, gun, 4)
    result = TrackingChain(detector, ChainConfig().with_particle("muon"), device="cpu", threads=1).run(event.cells)
    folder = tmp_path_factory.mktemp("own")
    write_event(folder / "truth", detector, event)
    write_event_result(folder / "tracks", 0, result)
    return folder, detector, event, result


def test_command_shows_our_tracks_beside_others(own):
    folder, *_ = own
    tracks, truth = folder / "tracks", folder / "truth"
    result = call("--truth", truth, "--tracks", tracks, "--tracks-kind", "own", "--compare", f"again={tracks}")
    assert result.exit_code == 0, result.output
    row = next(line for line in result.stdout.splitlines() if line.startswith(" efficiency")).split("%")
    assert row[0].split()[1:] == row[1].split()
    assert result.stdout.count("d0 ") == 2


def test_our_files_give_the_numbers_of_the_events_in_memory(own):
    from traccc_py.performance.frames import detector_frames

    folder, detector, event, result = own
    summaries = [
        PerformanceSummary({"all": TruthSelection()}, float(detector.arrays().b_z), detector_frames(detector))
        for _ in range(2)
    ]
    summaries[0].add_result(event, result)
    truth = read_truth(folder / "truth", 0)
    assert tracks_kind(folder / "tracks") == "own"
    summaries[1].add(truth, read_event_tracks(folder / "tracks", "own", folder / "truth", truth))
    memory, files = (s.as_dict() for s in summaries)
    assert memory["tracks"]["all"] == files["tracks"]["all"]
    assert files["tracks"]["all"]["n_found"] >= 55
    assert memory["fit_outcomes"] == files["fit_outcomes"]
    for where in ("first_state", "perigee"):
        for name in ("phi", "theta", "qop"):
            for number in ("mean", "sigma", "rms"):
                expected = memory[f"{where}_pulls"][name][number]
                assert files[f"{where}_pulls"][name][number] == pytest.approx(expected, abs=2e-3)
    for name in ("loc0", "loc1"):
        found, expected = (n["first_state_residuals"][name]["width"] for n in (files, memory))
        assert found == pytest.approx(expected, rel=0.02)


def test_files_of_another_event_are_refused(own, tmp_path):
    folder, *_ = own
    shutil.copytree(folder / "truth", tmp_path / "truth")
    cells = tmp_path / "truth" / "event000000000-cells.csv"
    lines = cells.read_text().splitlines()
    cells.write_text("\n".join(lines[:-40]) + "\n")
    truth = read_truth(tmp_path / "truth", 0)
    with pytest.raises(InputDataError, match="neither the measurements of"):
        read_event_tracks(folder / "tracks", "own", tmp_path / "truth", truth)


def test_tracks_of_the_true_measurements_are_linked_by_their_ids(own, tmp_path):
    """Measurements that came in keep their ids, in whatever order the reconstruction puts them."""
    folder, _, event, result = own
    shutil.copytree(folder / "truth", tmp_path / "truth")
    # the reconstructed measurements as the truth's, with the links of their cells
    from traccc_py.data.csv_events import write_measurements
    from traccc_py.performance.truth import link_digitization

    write_measurements(tmp_path / "truth" / "event000000000-measurements.csv", result.measurements)
    links = link_digitization(result.measurements, event.digitization, event.simulated.particle_index)
    rows = np.repeat(np.arange(len(result.measurements)), np.diff(links.offsets))
    pairs = read_measurement_hit_map(folder / "truth" / "event000000000-measurement-simhit-map.csv")
    pairs.measurement_id, pairs.hit_id = rows, links.hit_index
    write_measurement_hit_map(tmp_path / "truth" / "event000000000-measurement-simhit-map.csv", pairs)
    (tmp_path / "truth" / "event000000000-cells.csv").unlink()
    truth = read_truth(tmp_path / "truth", 0)
    found = read_event_tracks(folder / "tracks", "own", tmp_path / "truth", truth)
    np.testing.assert_array_equal(found.links.offsets, links.offsets)
    assert {tuple(sorted(p)) for p in np.split(found.links.particle_index, found.links.offsets[1:-1])} == {
        tuple(sorted(p)) for p in np.split(links.particle_index, links.offsets[1:-1])
    }
    assert len(read_tracks(folder / "tracks", 0)["track_id"]) == len(found.tracks)
    assert len(read_track_states(folder / "tracks", 0)["track_id"]) == len(found.tracks.measurement_index)
    assert len(read_cells(folder / "truth" / "event000000000-cells.csv").geometry_id) == len(event.cells.geometry_id)
    assert (found.tracks.fit_outcome == FitOutcome.SUCCESS).all()
