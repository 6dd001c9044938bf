"""Charges in sensors: their fluctuations, delta rays and what becomes of clusters, against published numbers."""

import numba
import numpy as np
import pytest

from tests.unit.test_simulation_digitization import hits_at, module_of
from traccc_py.geometry import build_detector
from traccc_py.simulation.digitization.deposits import (
    core_charge,
    delta_direction_cosine,
    density_effect,
    electron_range,
    next_transfer,
    sensor_charge,
    transfers_in_silicon,
)
from traccc_py.simulation.digitization.digitization import ChargeOptions, digitization_geometry, digitize
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.truth_geometry import truth_geometry
from traccc_py.units import MeV, keV, muon_mass

N = 100_000
KEY = event_key(8, 0)
ALL, NO_DELTAS = ChargeOptions(True, True), ChargeOptions(True, False)
PIXELS, STRIPS = 17, 29


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


@numba.njit
def _losses(p, mass, path, key, n):
    transfers = transfers_in_silicon(p, mass, path, True)
    out = np.empty(n)
    for i in range(n):
        out[i] = core_charge(transfers, path, key, np.uint64(i), 0, 0)
        number, place = 0, 0.0
        while True:
            step, energy, _ = next_transfer(transfers, key, np.uint64(i), 0, number)
            place += step
            if place > path:
                break
            out[i] += energy
            number += 1
    return out


def _mode_and_width(values, step):
    counts, edges = np.histogram(values, np.arange(0, 400, step))
    smooth = np.convolve(counts, np.ones(5) / 5, "same")
    above = np.flatnonzero(smooth > smooth.max() / 2)
    return edges[smooth.argmax()] + step / 2, (above[-1] - above[0] + 1) * step


@pytest.mark.parametrize("thickness", [0.1, 0.125, 0.3])
def test_most_probable_charge_is_the_measured_one(thickness):
    loss = _losses(10.0, muon_mass, thickness, KEY, N) / keV
    mode, width = _mode_and_width(loss, 0.5)
    # S. Meroli, D. Passeri, L. Servoli, J. Instrum. 6 (2011) P06013: fit of the most probable loss per micrometre
    um = 1000 * thickness
    assert mode == pytest.approx(um * (0.027 * np.log(um) + 0.126), rel=0.1)
    # wider than Landau's 4 xi (PDG 2024, section 34.2.9), the more the thinner: 1.2 to 2.3 times (H. Bichsel, 1988)
    landau = 4.02 * 0.1535375 * 0.49848 * 2.329 * um / 10
    assert 1.15 < width / landau < 2.4
    if thickness == 0.3:
        assert width == pytest.approx(27, abs=3)  # of 300 um: S. Hancock et al., Phys. Rev. A 28 (1983) 615


def test_density_effect_and_ranges_are_those_of_the_tables():
    # R. M. Sternheimer et al., 1984; asymptotically 2 ln(plasma energy / I) + 2 ln(beta gamma) - 1
    assert density_effect(1e4) == pytest.approx(2 * np.log(31.06 / 173) + 2 * np.log(1e4) - 1, abs=0.03)
    assert density_effect(0.5) < 0.05 < density_effect(4.0) < 1.0
    # practical ranges: 5.4 um of silicon at 30 keV and 0.41 g / cm^2 at 1 MeV (L. Katz, A. S. Penfold, 1952)
    assert electron_range(1 * MeV) == pytest.approx(4.12 / 2.329, rel=0.01)
    assert electron_range(30 * keV) == pytest.approx(0.006, rel=0.2)
    assert electron_range(5 * MeV) == pytest.approx(2 * electron_range(2.5 * MeV))
    assert delta_direction_cosine(0.0) == 0.0
    assert delta_direction_cosine(100 * keV) == pytest.approx(np.cos(np.radians(72.6)), abs=0.005)


def test_scale_makes_the_most_probable_charge_a_length(odd):
    scale, escape = sensor_charge(np.array([0.125, 0.3]))
    for thickness, factor in zip((0.125, 0.3), scale, strict=True):
        mode, _ = _mode_and_width(_losses(3.5 * muon_mass, muon_mass, thickness, KEY, N) / keV, 0.5)
        assert mode * keV * factor == pytest.approx(thickness, rel=0.06)
    assert electron_range(escape[0]) == pytest.approx(0.125, rel=0.01)


def _many(odd, volume, n=20_000, p=5.0):
    """Muons that cross one module perpendicularly in the middle of a channel of loc0."""
    truth, module = truth_geometry(odd), module_of(odd, volume)
    design = odd.designs[int(odd.arrays().surfaces["design"][module])]
    channel = int(design["n_channels0"]) // 2
    place = float(design["min0"]) + (channel + 0.5) * float(design["pitch0"])
    hits = hits_at(odd, truth, module, np.tile([place, 0.02], (n, 1)), np.tile([0.0, 0.0, p], (n, 1)))
    hits.hits.energy = np.full(n, np.hypot(p, muon_mass))
    return hits, (truth, digitization_geometry(odd, smearing=False)), design, channel


def _sizes(odd, volume, charges, n):
    """Return how far clusters of single muons reach along loc0, in channels, and their charges in thicknesses."""
    hits, geometry, design, channel = _many(odd, volume, 1)
    reach, charge = np.zeros(n), np.zeros(n)
    for i in range(n):
        hits.hits.particle_id[:] = i
        cells = digitize(odd, hits, KEY, charges=charges, geometry=geometry).cells
        reach[i] = np.abs(cells.channel0.astype(int) - channel).max(initial=0)
        charge[i] = cells.activation.sum(dtype=float) / float(design["thickness"])
    return reach, charge


def test_delta_rays_widen_clusters_as_often_as_the_formula_says(odd):
    n = 3000
    reach, charge = _sizes(odd, PIXELS, ALL, n)
    without, charge_without = _sizes(odd, PIXELS, NO_DELTAS, n)
    assert without.max() == 0
    assert np.median(charge) == pytest.approx(np.median(charge_without), rel=0.02)
    assert 0.95 < np.median(charge) < 1.5
    assert np.mean(charge > 2) > 0.02  # Landau's tail
    # to reach a neighbour, 25 um away, takes R > 25 um, 62 keV; to go beyond it 75 um, 117 keV: xi / T each, and less,
    # since directions are random and some leave the sensor
    xi = 0.1535375 * 0.49848 * 2.329 * 0.0125 * MeV
    for least, energy in ((1, 62 * keV), (2, 117 * keV)):
        expected = xi / energy
        assert 0.3 * expected < np.mean(reach >= least) < 0.9 * expected
    # the same without fluctuations of the rest
    alone, charge_alone = _sizes(odd, PIXELS, ChargeOptions(False, True), n)
    assert np.mean(alone >= 1) == pytest.approx(np.mean(reach >= 1), rel=0.4)
    assert charge_alone[alone == 0].min() == pytest.approx(1.0, abs=1e-4)
    strips, _ = _sizes(odd, STRIPS, ALL, 1500)
    assert 0 < np.mean(strips >= 1) < xi * 2 / (150 * keV)


def test_charges_do_not_depend_on_other_hits_and_each_cell_names_a_hit_once(odd):
    hits, geometry, _, _ = _many(odd, PIXELS, 300)
    hits.local_position[:, 0] += np.arange(300) * 0.05 - 7.5
    made = digitize(odd, hits, KEY, charges=ALL, geometry=geometry)
    again = digitize(odd, hits.select(np.arange(100, 200)), KEY, charges=ALL, geometry=geometry)
    for offset in range(len(made.cells)):
        links = made.hit_indices[made.hit_offsets[offset] : made.hit_offsets[offset + 1]]
        assert len(np.unique(links)) == len(links)
    total = np.bincount(made.hit_indices, minlength=300)
    assert (total >= 1).all()
    middle = np.isin(again.cells.channel0, made.cells.channel0)
    assert middle.all()


def test_slow_particles_leave_more(odd):
    hits, geometry, _, _ = _many(odd, PIXELS, 300)
    hits.local_position[:, 0] += np.arange(300) * 0.05 - 7.5
    fast = digitize(odd, hits, KEY, charges=NO_DELTAS, geometry=geometry).cells.activation
    hits.hits.momentum *= 0.5 / 5.0
    hits.hits.energy = np.full(300, np.hypot(0.5, 0.938272))
    slow = digitize(odd, hits, KEY, charges=NO_DELTAS, geometry=geometry).cells.activation
    # protons of 0.5 GeV: dE/dx 3.3 times that of minimum-ionising particles (PDG 2024, figure 34.2: 6.3 MeV cm^2 / g)
    assert 2.8 < np.median(slow) / np.median(fast) < 4.5
