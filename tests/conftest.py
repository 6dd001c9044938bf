"""Fixtures of all tests: reference data, devices; and what happens to tests that need a GPU."""

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from traccc_py.device import get_device
from traccc_py.device.cache import cache_directory, cache_root
from traccc_py.errors import DeviceUnavailableError

REFERENCE_DATA = "TRACCC_PY_REFERENCE_DATA"
REQUIRE_GPU = "TRACCC_PY_REQUIRE_GPU"
THREADS = 2
KINDS_OF_CODE = ("cpu", "cuda-sm80", "cuda-sm90", "cuda-sm100", "ptx-on-cpu")

# No deadline: a first example compiles. The same examples each time, so that a failure can be repeated.
hypothesis.settings.register_profile("traccc_py", deadline=None, derandomize=True)
hypothesis.settings.load_profile("traccc_py")


def pytest_configure(config):
    """Keep tables and samples of tests out of the user's cache, but share compiled code, which takes minutes."""
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist has the environment of the session
        return
    from traccc_py.simulation.compiled import code_folder

    shared = [*map(cache_directory, KINDS_OF_CODE), code_folder(), *cache_root().glob("navigation-odd-*.npz")]
    folder = Path(tempfile.mkdtemp(prefix="traccc_py-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(folder))  # of links to folders it removes the links alone
    for path in shared:
        (folder / path.name).symlink_to(path)
    os.environ["TRACCC_PY_CACHE_DIR"] = str(folder)
    os.environ.pop("TRACCC_PY_DATA_DIR", None)


@cache
def _why_no_gpu():
    try:
        get_device("cuda")
    except DeviceUnavailableError as error:
        return str(error)
    return None


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is None or _why_no_gpu() is None:
        return
    if os.environ.get(REQUIRE_GPU) == "1":
        pytest.fail(f"{REQUIRE_GPU} is 1, but {_why_no_gpu()}", pytrace=False)
    pytest.skip(f"needs a GPU: {_why_no_gpu()}")


@pytest.fixture(scope="session")
def reference_data():
    """Return the folder of reference data (real events, module lists), which are not part of this repository."""
    folder = os.environ.get(REFERENCE_DATA)
    if not folder:
        pytest.skip(f"{REFERENCE_DATA} is not set")
    if not Path(folder).is_dir():
        pytest.fail(f"{REFERENCE_DATA} is {folder}, which is no folder", pytrace=False)
    return Path(folder)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Return each device in turn; without a GPU the test is skipped there, or fails if `TRACCC_PY_REQUIRE_GPU` is 1."""
    return get_device(request.param, threads=THREADS)
