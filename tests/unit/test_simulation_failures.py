"""Dead modules, dead channels and lost hits of simulated events."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.unit.test_dead_channels import rows
from traccc_py.cli.app import app
from traccc_py.data.csv_events import read_cells, read_measurement_hit_map
from traccc_py.data.dead_channels import read_dead_channels
from traccc_py.data.track_files import read_tracks
from traccc_py.errors import ConfigError
from traccc_py.geometry import build_detector
from traccc_py.geometry.dead_channels import DeadChannels
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.selection import select_particles
from traccc_py.performance.truth import link_hits, simulated_truth
from traccc_py.simulation.digitization.failures import chance_of_modules, draw_dead_modules
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.simulation.settings import SampleConfig

GUN = ParticleGunConfig(50, momentum=(1.0, 10.0))
PIXELS, STRIPS = "pixel", "short strip"


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


@pytest.fixture(scope="module")
def whole(odd):
    return simulate_event(odd, GUN, 1)


def volume_of(ids):
    return (np.asarray(ids) >> np.uint64(56)).astype(int)


def by_channel(cells):
    channels = zip(cells.geometry_id.tolist(), cells.channel0.tolist(), cells.channel1.tolist(), strict=True)
    return dict(zip(channels, cells.activation.tolist(), strict=True))


def test_dead_channels_make_no_cells_and_leave_the_others(odd, whole):
    all_cells = by_channel(whole.cells)
    (first, *_), last = all_cells, list(all_cells)[-1]
    dead = DeadChannels.of_modules([first[0]]).and_also(rows((last[0], last[1], last[1], -1, -1)))
    left = simulate_event(odd.with_dead_channels(dead), GUN, 1)
    expected = {c: a for c, a in all_cells.items() if c[0] != first[0] and c[:2] != last[:2]}
    assert by_channel(left.cells) == expected
    assert 0 < len(expected) < len(all_cells)
    assert len(left.simulated) == len(whole.simulated)  # the particle was there
    has_cells = np.unique(left.digitization.hit_indices)
    np.testing.assert_array_equal(left.digitization.measurement_hit, has_cells)
    np.testing.assert_array_equal(np.unique(left.cells.measurement_id), np.arange(len(has_cells)))


def test_noise_fires_in_live_channels_only(odd):
    dead = draw_dead_modules(odd, (("all", 0.5),), 1)
    told = odd.with_dead_channels(dead)
    gun = ParticleGunConfig(0)
    noise, of_whole = (simulate_event(d, gun, 1, noise=(1e-6, 1e-4)).cells for d in (told, odd))
    assert 0.4 < len(noise) / len(of_whole) < 0.6
    assert not told.dead_ranges.contain(told.module_index(noise.geometry_id), noise.channel0, noise.channel1).any()


def test_lost_hits_leave_no_cells(odd, whole):
    left = simulate_event(odd, GUN, 1, inefficiency=((PIXELS, 0.2), (STRIPS, 1.0)))
    measured = [
        np.bincount(volume_of(event.simulated.hits.geometry_id[event.digitization.measurement_hit]), minlength=31)
        for event in (whole, left)
    ]
    pixels = [n[16:19].sum() for n in measured]
    assert pixels[1] / pixels[0] == pytest.approx(0.8, abs=4 * np.sqrt(0.2 * 0.8 / pixels[0]))
    assert measured[0][23:26].sum() > 0
    assert measured[1][23:26].sum() == 0
    np.testing.assert_array_equal(measured[0][28:], measured[1][28:])
    cells = by_channel(whole.cells)
    assert by_channel(left.cells).keys() < cells.keys()


def test_particles_are_findable_by_what_is_left(odd, whole):
    left = simulate_event(odd, GUN, 1, inefficiency=(("pixel barrel", 1.0), ("pixel endcap", 1.0)))
    selection = TruthSelection(min_pixel_layers=1)
    selected = []
    for event in (whole, left):
        truth = simulated_truth(event)
        links = link_hits(event.digitization.measurement_hit, truth.particle_of_hit)
        selected.append(select_particles(truth, links, selection))
    assert selected[0].sum() > 40
    assert not selected[1].any()


def test_dead_modules_of_a_kind_are_drawn_by_the_seed(odd):
    few, many = (draw_dead_modules(odd, ((PIXELS, f), ("long strip barrel", 0.3)), 5) for f in (0.05, 0.2))
    assert set(few.geometry_id) < set(many.geometry_id)
    n_pixels = np.count_nonzero(np.isin(volume_of(odd.geometry_ids), (16, 17, 18)))
    drawn = volume_of(few.geometry_id)
    assert set(drawn) == {16, 17, 18, 29}
    n = np.count_nonzero(drawn < 20)
    assert abs(n - 0.05 * n_pixels) < 4 * np.sqrt(0.05 * n_pixels)
    np.testing.assert_array_equal(
        few.geometry_id, draw_dead_modules(odd, ((PIXELS, 0.05), ("long strip barrel", 0.3)), 5).geometry_id
    )
    assert set(few.geometry_id) != set(draw_dead_modules(odd, ((PIXELS, 0.05),), 6).geometry_id)


def test_the_last_kind_that_fits_counts(odd):
    chance = chance_of_modules(odd, (("all", 0.1), (PIXELS, 0.0)))
    volume = volume_of(odd.geometry_ids)
    assert (chance[np.isin(volume, (16, 17, 18))] == 0.0).all()
    assert (chance[volume > 18] == 0.1).all()


def test_unknown_kinds_and_impossible_fractions_are_refused(odd):
    with pytest.raises(
        ConfigError, match=r"'strip' is no kind of modules of 'odd'; expected 'all', or the beginning of"
    ):
        chance_of_modules(odd, (("strip", 0.1),))
    for fraction in (-0.1, 1.1, float("nan")):
        for name in ("dead_modules", "inefficiency"):
            with pytest.raises(ConfigError, match=f"{name} .*expected fractions from 0 to 1"):
                SampleConfig(GUN, **{name: (("all", fraction),)})


# --- the command line


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_sample_with_failures_from_the_command_line(tmp_path):
    folder, own = tmp_path / "sample", tmp_path / "own.json"
    ids = build_detector("telescope").geometry_ids
    own.write_text(json.dumps({"dead_channels": [{"geometry_id": int(ids[0]), "channel0": [0, 1999]}]}))
    arguments = ["simulate", "--detector", "telescope", "--particles", 40, "--eta", -0.2, 0.2, "--phi", -10, 10]
    arguments += ["--dead-channels", own, "--dead-modules", "all=0.3", "--inefficiency", "all=0.05", "-o", folder]
    made = call(*arguments, "--seed", 5)
    assert made.exit_code == 0, made.output
    assert "dead_channels.csv; --dead-channels tells other commands of them" in made.stdout
    assert "6 files of 1 event" in call("simulate", "--check", folder).stdout
    assert "already there; unchanged" in call(*arguments, "--seed", 5).stdout
    listed = read_dead_channels(folder / "dead_channels.csv")
    dead = set(listed.geometry_id[1:].tolist())
    assert 0 < len(dead) < 9
    cells = read_cells(folder / "event000000000-cells.csv")
    assert set(cells.geometry_id.tolist()).isdisjoint(dead)
    assert not ((cells.geometry_id == ids[0]) & (cells.channel0 < 2000)).any()
    links = read_measurement_hit_map(folder / "event000000000-measurement-simhit-map.csv")
    assert len(links.hit_id) == cells.measurement_id.max() + 1
    assert len(links.hit_id) < 9 * 40 * 0.9
    n_found = []
    for name, more in (("told", ["--dead-channels", folder / "dead_channels.csv"]), ("not", [])):
        done = call("run", folder, "--detector", "telescope", "--device", "cpu", "-o", tmp_path / name, *more)
        assert done.exit_code == 0, done.output
        n_found.append(np.count_nonzero(read_tracks(tmp_path / name, 0)["n_holes"] == 0))
    assert n_found[0] > n_found[1]
    seen = call("performance", "--sample", folder, "--detector", "telescope", "--device", "cpu", "--dead-channels", own)
    assert seen.exit_code == 0, seen.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--dead-modules", "pixel"], "--dead-modules is 'pixel'; expected KIND=FRACTION such as pixel=0.05"),
        (["--dead-modules", "=0.1"], "--dead-modules is '=0.1'"),
        (["--inefficiency", "all=2"], "--inefficiency is 'all=2'; expected KIND=FRACTION"),
        (["--inefficiency", "all=nan"], "--inefficiency is 'all=nan'"),
        (["--inefficiency", "all=x"], "--inefficiency is 'all=x'"),
        (["--dead-modules", "pixel=0.1"], "'pixel' is no kind of modules of 'telescope'; expected 'all'"),
        (["--inefficiency", "pixel=0.1"], "'pixel' is no kind of modules of 'telescope'; expected 'all'"),
        (["--dead-channels", "none.csv"], "none.csv: there is no such file"),
    ],
)
def test_bad_options_are_refused_before_events_are_made(tmp_path, arguments, problem):
    done = call("simulate", "--detector", "telescope", "-o", tmp_path / "a", *arguments)
    assert done.exit_code == 2
    assert problem in " ".join(done.stderr.split())
    assert not list((tmp_path / "a").glob("event*"))


def test_the_detector_tells_how_much_is_dead(tmp_path):
    ids = build_detector("telescope").geometry_ids
    path = tmp_path / "dead.csv"
    path.write_text(f"geometry_id,channel0_first,channel0_last\n{ids[0]},-1,-1\n{ids[1]},5,6\n")
    done = call("detector", "telescope", "--dead-channels", path, "--write", tmp_path / "files")
    assert "dead: 1 sensor, and 1 range of channels" in done.stdout
    again = read_dead_channels(tmp_path / "files" / "dead_channels.csv")
    assert again.channel0.tolist() == [[-1, -1], [5, 6]]
    assert "dead" not in call("detector", "telescope").stdout
