"""Nothing that small samples show has moved since reference.json was made; `make reference` makes it anew."""

import json
from dataclasses import replace

import pytest

from tests.physics.monitoring import REFERENCE, SAMPLES, compare, environment, make_chain, monitor, simulate
from traccc_py.config import ChainConfig
from traccc_py.geometry import build_detector

pytestmark = pytest.mark.physics

HOW = "if that is meant, renew the reference with `make reference` and say why in the commit"


@pytest.fixture(scope="module")
def reference():
    return json.loads(REFERENCE.read_text())


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="module")
def chain(detector):
    return make_chain(detector)


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_has_moved(name, reference, detector, chain):
    """To the last entry where processor and versions are those of the reference, else within a percent."""
    here, there = environment(), reference["environment"]
    if name == "ttbar" and here["pythia8mc"] != there["pythia8mc"]:
        pytest.skip(f"the reference was made with Pythia {there['pythia8mc']}, here is {here['pythia8mc']}; {HOW}")
    found = monitor(simulate(name, detector), chain)
    moved = compare(name, reference["samples"][name], found, is_exact=here == there)
    assert not moved, "\n".join([*moved, HOW])


@pytest.mark.parametrize(
    ("section", "changes", "shown"),
    [
        ("finding", {"chi2_max": 12.0, "retry_chi2_max": 12.0}, "jet core: chi2_per_ndf"),
        ("seeding", {"sigma_scattering": 1.0}, "jet core: "),
        ("parameter_estimation", {"inflation": 10.0}, "jet core: "),
    ],
)
def test_a_moved_cut_is_seen(section, changes, shown, reference, detector):
    """With the tolerances of another machine, too."""
    config = ChainConfig()
    config = replace(config, **{section: replace(getattr(config, section), **changes)})
    found = monitor(simulate("jet core", detector), make_chain(detector, config))
    for is_exact in (True, False):
        moved = compare("jet core", reference["samples"]["jet core"], found, is_exact=is_exact)
        assert any(sentence.startswith(shown) for sentence in moved), moved


def test_one_entry_that_moved_is_named(reference):
    expected = reference["samples"]["muons"]
    found = json.loads(json.dumps(expected))
    assert compare("muons", expected, found, is_exact=True) == []
    histogram = found["histograms"]["pulls of d0, perigee"]
    histogram[25] -= 1
    histogram[40] += 1
    (moved,) = compare("muons", expected, found, is_exact=True)
    assert moved.startswith("muons: pulls of d0, perigee: ")
    assert compare("muons", expected, found, is_exact=False) == []
    found["counts"]["tracks"] = 0
    del found["numbers"]["mean p-value"]
    assert len(compare("muons", expected, found, is_exact=False)) == 2
