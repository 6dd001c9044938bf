"""What a GPU must show: every kernel against the CPU, the chain on samples, the same bits again and in any batch.

Run with ``TRACCC_PY_REQUIRE_GPU=1 pytest -m gpu``: then a GPU that is missing is a failure. Elsewhere the tests run
on the stand-ins for CuPy and the driver, where nothing may differ at all.
"""

from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.comparison import compare
from tests.devices.checking_device import WORK_SPACE, copied
from tests.devices.cuda_fakes import STREAMS, fake_cuda_device
from tests.integration.small_events import columns, telescope, telescope_cells
from traccc_py import read_cells
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.data.sample import sample_event_path
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.cuda.layout import leaves
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.kernel import registered_kernels
from traccc_py.edm import Cells
from traccc_py.geometry import build_detector
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

N_REPEATS = 20
GRID_CONFIG = ChainConfig().with_settings({"seeding.method": "grid"})
OTHER_CONFIG = GRID_CONFIG.with_settings({"seed_thinning.enabled": False, "ambiguity_resolution.enabled": False})
# Of the elements of an output. Cut variables within 1e-4 of a cut fall on either side; contraction to fused
# multiply-add changes last bits, and what is a difference of large numbers more.
MAX_SHARE_OFF = 1e-3
MAX_ROWS_OFF = 3  # where this is a larger share: in short columns
MAX_SHARE_OF_SHORT = 0.05
RELATIVE, ABSOLUTE = 1e-3, 1e-4


class Setup(NamedTuple):
    """A device, and what it is tried with."""

    make: Any  # function of options of `CudaDevice`
    detector: Any
    events: list[Any]
    is_exact: bool


def _on_stand_ins(monkeypatch):
    detector = telescope()
    events = [telescope_cells(n, n, detector) for n in (4, 0, 30, 1)]
    return Setup(lambda **options: fake_cuda_device(monkeypatch, options=options), detector, events, True)


def _on_gpu():
    from traccc_py.device.cuda.executor import CudaDevice

    detector = build_detector("odd")
    guns = [
        ParticleGunConfig(n_particles=n, momentum=(0.5, 20.0), vertex_sigma=(0.01, 0.01, 55.0)) for n in (0, 300, 5)
    ]
    events = [simulate_event(detector, gun, seed=3, event=k).cells for k, gun in enumerate(guns)]
    return Setup(CudaDevice, detector, [read_cells(sample_event_path()), *events], False)


@pytest.fixture(params=["stand-ins", pytest.param("cuda", marks=pytest.mark.gpu)])
def setup(request, monkeypatch):
    STREAMS.clear()
    return _on_stand_ins(monkeypatch) if request.param == "stand-ins" else _on_gpu()


class Launch(NamedTuple):
    """A launch on the CPU: its payload before and after."""

    kernel: Any
    n: int
    before: Any
    after: Any


class RememberingDevice(DeferredDevice):
    """Runs kernels on the CPU and keeps what they were given and what they made of it, first launches only."""

    def __init__(self):
        super().__init__(threads=1)
        self.launches: dict[str, Launch] = {}

    def launch(self, kernel, extent, payload):
        n = self._size(extent)
        known = self.launches.get(kernel.name)
        if n <= 0 or (known is not None and known.n >= n):
            super().launch(kernel, extent, payload)
            return
        before = copied(payload)
        super().launch(kernel, extent, payload)
        self.launches[kernel.name] = Launch(kernel, n, before, copied(payload))


def recorded_launches(setup):
    """Return the largest launch of each kernel of the chain."""
    device = RememberingDevice()
    for config in (ChainConfig(), GRID_CONFIG, OTHER_CONFIG):
        TrackingChain(setup.detector, config, device).run_batch(setup.events)
    planes = telescope()
    ending = telescope_cells(5, 5, planes)
    is_near = np.isin(ending.geometry_id, planes.geometry_ids[:6])  # tracks that end, as at a kink
    ending = Cells(*(getattr(ending, name)[is_near] for name in Cells.__slots__))
    TrackingChain(planes, ChainConfig(), device).run_batch([ending])
    toy = build_detector("toy")  # seeds by layer pairs
    event = simulate_event(toy, ParticleGunConfig(n_particles=20), seed=3)
    TrackingChain(toy, ChainConfig(), device).run_batch([event.cells])
    return device.launches


def to_device(device, payload):
    """Return a payload with its arrays on the device; the same arrays stay the same."""
    twins = {}

    def moved(value):
        if isinstance(value, tuple):
            return type(value)(*(moved(member) for member in value))
        if isinstance(value, np.ndarray):
            return twins.setdefault(id(value), device.to_device(value))
        return value

    return moved(payload)


def share_off(found, expected):
    """Return the share of elements that differ by more than rounding."""
    if expected.dtype.fields is not None:
        return 0.0 if found.tobytes() == expected.tobytes() else 1.0
    if expected.dtype.kind != "f":
        return float(np.mean(found != expected)) if expected.size else 0.0
    close = np.isclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    return float(np.mean(~close)) if expected.size else 0.0


def allowed_share(expected):
    """Return the share of elements that may differ: of short columns of real numbers some rows, but not all."""
    few = MAX_ROWS_OFF / max(1, expected.size) if expected.dtype.kind == "f" else 0.0
    return max(MAX_SHARE_OFF, min(few, MAX_SHARE_OF_SHORT))


def test_each_kernel_gives_what_the_cpu_gives(setup):
    launches = recorded_launches(setup)
    modules = {n: k.body.py_func.__module__ for n, k in registered_kernels().items()}
    others = "traccc_py.kernels.gnn"  # of a finder that these chains don't have
    ours = {n for n, m in modules.items() if m.startswith("traccc_py.") and not m.startswith(others)}
    assert ours - set(launches) == {"tracking_selection_fill_list"}  # on CPUs; here scans write lists
    device = setup.make()
    wrong = {}
    for name, launch in launches.items():
        payload = to_device(device, launch.before)
        device.launch(launch.kernel, launch.n, payload)
        skipped = [attrgetter(field)(launch.after) for field in WORK_SPACE.get(name, ())]
        for got, expected in zip(leaves(payload), leaves(launch.after), strict=True):
            if not isinstance(expected, np.ndarray) or any(expected is array for array in skipped):
                continue
            off = share_off(device.to_host(got), expected)
            if off > (0 if setup.is_exact else allowed_share(expected)):
                wrong.setdefault(name, []).append(off)
    assert wrong == {}


def assert_same_bits(results, expected):
    for result, right in zip(results, expected, strict=True):
        found = columns(result)
        for name, column in columns(right).items():
            assert found[name].tobytes() == column.tobytes(), name


def test_chain_gives_the_tracks_of_the_cpu(setup):
    found = TrackingChain(setup.detector, device=setup.make()).run_batch(setup.events)
    expected = TrackingChain(setup.detector, device=CpuDevice(1)).run_batch(setup.events)
    assert sum(len(result.tracks) for result in expected) > 10
    for result, right in zip(found, expected, strict=True):
        assert compare(result, right).is_good, compare(result, right)
    if setup.is_exact:
        assert_same_bits(found, expected)


def test_same_bits_each_time_and_in_any_batch(setup):
    chain = TrackingChain(setup.detector, device=setup.make())
    alone = [chain.run(cells) for cells in setup.events]
    for _ in range(N_REPEATS):
        assert_same_bits(chain.run_batch(setup.events), alone)
    assert_same_bits(chain.run_batch(setup.events[::-1]), alone[::-1])
    assert_same_bits(chain.run_batch(setup.events * 3), alone * 3)
    for cells, result in zip(setup.events, alone, strict=True):
        assert_same_bits([chain.run(cells)], [result])


def test_same_bits_one_batch_after_the_other(setup):
    chain = TrackingChain(setup.detector, device=setup.make())
    alone = [chain.run(cells) for cells in setup.events]
    order = [0, 2, 1, 3, 2, 2, 0, 1]
    found = chain.run_batches([[setup.events[k], setup.events[0]] for k in order])
    for results, k in zip(found, order, strict=True):
        assert_same_bits(results, [alone[k], alone[0]])


def test_same_bits_with_graphs(setup):
    plain = TrackingChain(setup.detector, device=setup.make()).run_batch(setup.events)
    chain = TrackingChain(setup.detector, device=setup.make(uses_graphs=True))
    for _ in range(N_REPEATS):
        assert_same_bits(chain.run_batch(setup.events), plain)


def test_other_configuration_gives_the_tracks_of_the_cpu(setup):
    found = TrackingChain(setup.detector, OTHER_CONFIG, setup.make()).run_batch(setup.events)
    expected = TrackingChain(setup.detector, OTHER_CONFIG, CpuDevice(1)).run_batch(setup.events)
    for result, right in zip(found, expected, strict=True):
        assert compare(result, right).is_good, compare(result, right)
