"""Events by a Dask cluster: the same bytes as from one process, also when a worker is killed."""

import os
import signal
import time

import pytest
from typer.testing import CliRunner

from tests.integration.small_events import columns, telescope, telescope_cells
from traccc_py import TrackingChain
from traccc_py.cli.app import app
from traccc_py.data.csv_events import write_cells
from traccc_py.distributed import ChainRecipe, reconstruct, run
from traccc_py.errors import InputDataError

distributed = pytest.importorskip("distributed", reason="distributed is not installed: pip install traccc-py[dask]")

RECIPE = ChainRecipe("telescope")
N_EVENTS = 24

# Of Dask's own sockets and loops, at its end.
pytestmark = pytest.mark.filterwarnings("default::ResourceWarning", "default::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    for number in range(N_EVENTS):
        write_cells(folder / f"event{number:09d}-cells.csv", telescope_cells(4 + number % 5, number, telescope()))
    return folder


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """Return the results of one process."""
    output = tmp_path_factory.mktemp("whole")
    done = CliRunner().invoke(
        app, ["run", str(folder), "--detector", "telescope", "--device", "cpu", "--output", str(output)]
    )
    assert done.exit_code == 0, done.output
    return contents(output)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cluster(**options):
    return distributed.LocalCluster(threads_per_worker=1, dashboard_address=None, silence_logs=50, **options)


def test_workers_in_this_process(folder, whole, tmp_path):
    with cluster(n_workers=1, processes=False) as local, distributed.Client(local) as client:
        assert run(client, [folder], tmp_path / "out", RECIPE, events=10) == 10
        assert run(client, [folder], tmp_path / "out", RECIPE, resume=True) == N_EVENTS - 10
        assert contents(tmp_path / "out") == whole
        events = [[telescope_cells(3, 1, telescope()), telescope_cells(5, 2, telescope())], []]
        (results, nothing), (counts, _) = (
            client.gather(reconstruct(client, events, RECIPE, function)) for function in (None, len)
        )
        with pytest.raises(InputDataError, match="no file that ends"):
            run(client, [tmp_path], tmp_path / "out", RECIPE)
        with pytest.raises(InputDataError, match="made in another way"):
            run(client, [folder], tmp_path / "out", ChainRecipe("odd"))
    assert (counts, nothing) == (2, [])
    expected = TrackingChain(telescope(), device="cpu", threads=1).run_batch(events[0])
    for found, same in zip(results, expected, strict=True):
        ours = columns(same)
        assert all(values.tobytes() == ours[name].tobytes() for name, values in columns(found).items())


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(folder, whole, tmp_path):
    with cluster(n_workers=2, processes=True, host="127.0.0.1") as local, distributed.Client(local) as client:
        killed = []

        def kill(after):
            """Kill a worker when some events are complete."""
            while not (tmp_path / "out" / ".run-events.jsonl").exists():
                time.sleep(0.005)
            time.sleep(after)
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

        import threading

        thread = threading.Thread(target=kill, args=(0.05,))
        thread.start()
        assert run(client, [folder], tmp_path / "out", RECIPE, groups_per_task=2) == N_EVENTS
        thread.join()
        assert killed
    assert contents(tmp_path / "out") == whole
