"""The navigation kept on disk."""

import time

import numpy as np
import pytest

from tests.unit.damages import DAMAGES
from traccc_py.geometry import build_detector, detector

MAX_BUILD_SECONDS = 2.0
MAX_LOAD_SECONDS = 0.5  # 0.05 s on an idle machine


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def fills(monkeypatch):
    """Count how often bins are made."""
    calls = []
    real = detector.fill_bins
    monkeypatch.setattr(detector, "fill_bins", lambda *args: (calls.append(1), real(*args))[1])
    return calls


def test_second_build_takes_the_bins_from_disk(folder, fills):
    start = time.perf_counter()
    first = build_detector("odd")
    middle = time.perf_counter()
    second = build_detector("odd")
    end = time.perf_counter()
    assert len(fills) == 1
    assert first.fingerprint == second.fingerprint
    assert first.layer_names == second.layer_names
    assert middle - start < MAX_BUILD_SECONDS
    assert end - middle < MAX_LOAD_SECONDS
    assert [p.suffix for p in folder.iterdir()] == [".npz"]


@pytest.mark.parametrize("damage", [*DAMAGES, "other"])
def test_damaged_file_is_made_anew(folder, fills, damage):
    expected = build_detector("toy")
    (file,) = folder.iterdir()
    if damage == "other":  # a sound archive with the arrays of something else
        np.savez(file, **{f: np.zeros(3, np.int32) for f in expected.navigation.__dataclass_fields__})
    else:
        DAMAGES[damage](file)
    assert build_detector("toy").fingerprint == expected.fingerprint
    assert len(fills) == 2
    build_detector("toy")
    assert len(fills) == 2


def test_other_content_has_another_file(folder, fills):
    build_detector("toy")
    build_detector("toy", material_thickness=0.5)
    assert len(fills) == 2
