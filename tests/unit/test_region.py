"""Regions of interest: no module that a track of the region crosses is left out, and the tracks found stay the same."""

import math

import numpy as np
import pytest

from traccc_py import TrackingChain, build_detector
from traccc_py.errors import ConfigError
from traccc_py.geometry.field import solenoid_field_map
from traccc_py.geometry.region import Region, modules_of_region
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

REGIONS = (
    Region((-0.2, 0.2), (0.1, 0.6)),
    Region((1.5, 2.0), (math.pi - 0.2, -math.pi + 0.2), z=(-30, 30)),
    Region((-2.6, -2.2), (-1.0, 0.0), min_pt=2.0),
)
N_MUONS = 400


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


def muons(detector, region, n, z, highest_pt):
    """Return the cells of muons in a region, from its softest on, with vertices at the ends of its z."""
    gun = ParticleGunConfig(
        n,
        momentum=(region.min_pt, highest_pt),
        eta=region.eta,
        phi=(region.phi[0], region.phi[0] + region.phi_width),
        vertex_mean=(0.0, 0.0, z),
        vertex_sigma=(0.0, 0.0, 0.0),
    )
    return simulate_event(detector, gun, 3).cells


@pytest.mark.parametrize("region", REGIONS, ids=["barrel", "across pi", "endcap"])
def test_no_module_of_a_track_is_left_out(odd, region):
    chosen = modules_of_region(odd, region)
    assert chosen.mean() < 0.25
    for z in region.z:
        cells = muons(odd, region, N_MUONS, z, 2 * region.min_pt)
        assert chosen[odd.module_index(cells.geometry_id)].all()


def test_wider_regions_have_more_modules(odd):
    narrow, wide = (modules_of_region(odd, Region((-d, d), (1 - d, 1 + d))) for d in (0.1, 0.3))
    assert (wide | ~narrow).all()
    assert wide.sum() > 1.5 * narrow.sum()
    soft = modules_of_region(odd, Region((-0.1, 0.1), (0.9, 1.1), min_pt=0.5))
    assert (soft | ~narrow).all()
    everything = modules_of_region(odd, Region((-6, 6), (-math.pi, math.pi), z=(-3000, 3000)))
    assert (everything == odd.surfaces.is_sensitive).all()


def test_fields(odd):
    region = Region((-0.2, 0.2), (0.1, 0.6))
    straight, bent = (modules_of_region(d, region).sum() for d in (odd.with_field(0.0), odd.with_field(3.0)))
    assert straight < modules_of_region(odd, region).sum() < bent
    assert modules_of_region(odd.with_field_map(solenoid_field_map(b_z=3.0)), region).sum() >= bent


def test_efficiency_inside_is_that_of_the_full_scan(odd):
    """Tracks of particles in the region, with particles everywhere, are found in its cells alone as in all."""
    chain = TrackingChain(odd, device="cpu", threads=1)
    gun = ParticleGunConfig(1000, momentum=(1.0, 5.0), eta=(-2.0, 2.0), vertex_sigma=(0.01, 0.01, 40.0))
    region = Region((-0.5, 0.5), (-0.6, 0.6), z=(-150, 150))
    n_full = n_inside = n_same = 0
    for seed in (1, 2):
        cells = simulate_event(odd, gun, seed).cells
        cut = cells[modules_of_region(odd, region)[odd.module_index(cells.geometry_id)]]
        assert len(cut) < 0.35 * len(cells)
        full, inside = chain.run(cells).tracks, chain.run(cut).tracks
        kept = [
            tracks[region.contains(tracks.eta, tracks.phi, tracks.z0) & (tracks.pt > 1.1)] for tracks in (full, inside)
        ]
        n_full, n_inside = n_full + len(kept[0]), n_inside + len(kept[1])
        n_same += np.isin(kept[0].qop, kept[1].qop).sum()
    assert n_full > 50
    assert n_inside == n_full
    assert n_same == n_full  # bit for bit


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((1, 1), (0, 1)), "eta of the region is 1 to 1"),
        (((0, 1), (0, 1), (2, -2)), "z of the region is 2 to -2"),
        (((0, math.nan), (0, 1)), "not finite"),
        (((0, 1), (0, 1), (-1, 1), 0.0), "min_pt and max_d0 of the region are 0, 10"),
    ],
)
def test_impossible_regions(arguments, words):
    with pytest.raises(ConfigError, match=words):
        Region(*arguments)


def test_contains():
    region = Region((-1, 1), (3, -3))
    assert region.phi_width == pytest.approx(2 * math.pi - 6)
    assert region.contains([0, 0, 0, 2], [3.1, -3.1, 0, 3.1], 0).tolist() == [True, True, False, False]
    assert Region((-1, 1), (-math.pi, math.pi)).contains(0, [-3, 0, 3], 0).all()
