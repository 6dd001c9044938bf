"""Bins of layers: whatever a track hits must be listed in the bin of its reference crossing."""

import numpy as np
import pytest

from tests.geometry_summary import bin_occupancy
from tests.reference.geometry import (
    Helices,
    disc_path,
    nearest_cylinder_path,
    random_helices,
    sensor_hits,
)
from traccc_py.geometry import build_detector
from traccc_py.geometry.records import LayerKind

CYLINDER = int(LayerKind.CYLINDER)


def count_misses(detector, helices):
    """Numbers of hits, of those without reference crossing, beyond the layer's extent, and not in their bin."""
    track, surface, s = sensor_hits(helices, detector.surfaces)
    layer = detector.layers[detector.layer_of_surface[surface]]
    position = layer["position"].astype(float)
    is_cylinder = layer["kind"] == CYLINDER
    s_ref = disc_path(helices, track, position)
    s_ref[is_cylinder] = nearest_cylinder_path(helices, track[is_cylinder], position[is_cylinder], s[is_cylinder])
    crossing = helices.at(track, s_ref)
    phi, r = np.arctan2(crossing[:, 1], crossing[:, 0]), np.hypot(crossing[:, 0], crossing[:, 1])
    other = np.where(is_cylinder, crossing[:, 2], r)
    has_crossing = np.isfinite(s_ref)
    is_inside = has_crossing & (other >= layer["extent_min"]) & (other <= layer["extent_max"])
    arrays = detector.arrays()
    i_phi = np.floor((phi[is_inside] + np.pi) / (2 * np.pi) * layer["n_phi"][is_inside]).astype(int)
    i_phi %= layer["n_phi"][is_inside]
    pitch = (layer["other_max"] - layer["other_min"]) / layer["n_other"]
    i_other = np.floor((other - layer["other_min"]) / pitch)[is_inside].astype(int)
    i_other = i_other.clip(0, layer["n_other"][is_inside] - 1)
    index = layer["first_bin"][is_inside] + i_phi * layer["n_other"][is_inside] + i_other
    listed = np.repeat(np.arange(len(arrays.bin_offsets) - 1), np.diff(arrays.bin_offsets))
    n = len(detector.surfaces)
    is_listed = np.isin(index * n + surface[is_inside], listed * n + arrays.bin_surfaces)
    return {
        "hits": len(s),
        "no crossing": int((~has_crossing).sum()),
        "beyond": int((has_crossing & ~is_inside).sum()),
        "not listed": int((~is_listed).sum()),
    }


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


# Tracks: (pT range [GeV], |eta| limit, sigma of d0 [mm]), and the largest share of hits that may be lost in all ways.
SAMPLES = {
    "prompt": (3000, (0.5, 10.0), 3.5, 0.0, 0.0),
    "soft": (1000, (0.15, 0.5), 3.5, 0.0, 4e-3),
    "displaced": (1000, (0.5, 10.0), 3.5, 30.0, 2.5e-3),
    "soft and displaced": (1000, (0.15, 0.5), 3.5, 30.0, 6e-3),
}


@pytest.mark.parametrize("sample", list(SAMPLES))
def test_bins_of_the_odd_list_what_tracks_hit(odd, sample, record_property):
    n, pt, eta_max, d0_sigma, allowed = SAMPLES[sample]
    found = count_misses(odd, random_helices(np.random.default_rng(20250101), n, pt, eta_max, d0_sigma))
    record_property("counts", str(found))
    assert found["hits"] > 10 * n
    assert found["no crossing"] + found["beyond"] + found["not listed"] <= allowed * found["hits"], found


def test_bins_of_the_toy_list_what_prompt_tracks_hit():
    detector = build_detector("toy", n_endcap_layers=7)
    found = count_misses(detector, random_helices(np.random.default_rng(5), 2000, (0.5, 10.0), 3.0))
    assert found["hits"] > 5 * 2000
    assert found["no crossing"] + found["beyond"] + found["not listed"] == 0, found


def test_missing_entries_are_noticed(odd):
    """The comparison itself must be able to fail: with an empty list nothing is found."""
    arrays = odd.arrays()
    odd_without = build_detector("odd")
    emptied = arrays._replace(bin_surfaces=np.full_like(arrays.bin_surfaces, -1))
    odd_without.__dict__["_arrays"] = emptied
    found = count_misses(odd_without, random_helices(np.random.default_rng(5), 50, (0.5, 10.0), 2.0))
    assert found["not listed"] == found["hits"] > 0


def test_bins_are_small(odd):
    """Few sensors in a bin, or every track tries many for nothing."""
    for name, (mean, largest) in bin_occupancy(odd).items():
        assert mean < (7.5 if name.startswith("long strip barrel") else 6), name
        assert largest <= 12, name


def test_brute_force_helix_hits_a_known_sensor(odd):
    """A straight track through the middle of one sensor hits it, at the distance of its centre."""
    index = 420  # first of the innermost barrel layer
    centre = odd.surfaces.centre[index]
    r = np.hypot(*centre[:2])
    phi = np.arctan2(centre[1], centre[0])
    helix = Helices(np.zeros((1, 3)), np.array([phi]), np.array([centre[2] / r]), np.array([1e-6]))
    track, surface, s = sensor_hits(helix, odd.surfaces)
    assert s[surface == index] == pytest.approx([r], abs=1e-3)
    assert (track == 0).all()
