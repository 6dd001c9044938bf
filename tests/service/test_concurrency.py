"""Many clients at once, good and bad events mixed: good ones are right to the bit, bad ones get their own error."""

import re
import shutil
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from traccc_py import wire
from traccc_py.edm import Cells

pytest.importorskip("tritonclient")
N_CLIENTS = 8
N_REQUESTS = 200
BAD_SHARE = 0.1
METRICS_SECONDS = 1.0  # counters are sent a few times a second
SIZES = (0, 20, 60, 120, 200, 300, 450, 663)  # cells


def around_the_beam(cells, detector):
    """Return the cells ordered by their module's phi: the first n are whole tracks of a sector."""
    centre = detector.surfaces.centre[np.searchsorted(detector.geometry_ids, cells.geometry_id)]
    return first_cells(cells, np.argsort(np.arctan2(centre[:, 1], centre[:, 0]), kind="stable"))


def first_cells(cells, rows):
    return Cells(*(getattr(cells, name)[rows] for name in Cells.__slots__))


def with_value(tensors, name, row, column, value):
    changed = tensors[name].copy()
    changed[row, column] = value
    return {**tensors, name: changed}


def unequal_rows(t):
    return {**t, "CELL_PROPERTIES": t["CELL_PROPERTIES"][:-1].copy()}


def three_columns(t):
    return {**t, "CELL_POSITIONS": t["CELL_POSITIONS"][:, :3].copy()}


def wrong_rank(t):
    return {**t, "CELL_PROPERTIES": t["CELL_PROPERTIES"].ravel().copy()}


def wrong_dtype(t):
    return {**t, "CELL_POSITIONS": t["CELL_POSITIONS"].astype(np.int32)}


# Way to be bad -> what is sent, what the error says.
BAD = {
    "unknown id": (
        lambda t: with_value(t, "CELL_POSITIONS", 3, 0, 77),
        r"cells row 3 .*geometry_id is 77, which is not a sensitive module",
    ),
    "channel beyond": (
        lambda t: with_value(t, "CELL_POSITIONS", 4, 2, 99_999),
        r"cells row 4 .*channel0 is 99999, outside module \d+; expected 0 to \d+",
    ),
    "channel below": (lambda t: with_value(t, "CELL_POSITIONS", 5, 3, -1), r"cells row 5 .*channel1 is -1, outside"),
    "NaN": (lambda t: with_value(t, "CELL_PROPERTIES", 6, 1, np.nan), r"cells row 6 .*value \(activation\) is nan"),
    "negative": (lambda t: with_value(t, "CELL_PROPERTIES", 7, 1, -2), r"cells row 7 .*value \(activation\) is -2\.0"),
    "infinite time": (lambda t: with_value(t, "CELL_PROPERTIES", 8, 0, np.inf), r"cells row 8 .*timestamp is inf"),
    "unequal rows": (unequal_rows, r"CELL_PROPERTIES has \d+ rows, CELL_POSITIONS has \d+"),
    "three columns": (three_columns, r"unexpected shape for input 'CELL_POSITIONS'.*Expected \[-1,4\], got \[\d+,3\]"),
    "wrong rank": (wrong_rank, r"unexpected shape for input 'CELL_PROPERTIES'.*Expected \[-1,2\], got \[\d+\]"),
    "wrong dtype": (wrong_dtype, r"CELL_POSITIONS.*INT64|CELL_POSITIONS.*INT32"),
}


def infer(client, tensors, model=wire.MODEL):
    import tritonclient.grpc as grpc
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, values in tensors.items():
        inputs.append(grpc.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        inputs[-1].set_data_from_numpy(values)
    answer = client.infer(model, inputs)
    return {spec.name: answer.as_numpy(spec.name) for spec in wire.STANDARD_OUTPUTS}


def counters(server):
    time.sleep(METRICS_SECONDS)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(r"^(traccc_py_\w+)\{[^}]*\} (\S+)$", text, re.MULTILINE)
    totals = {}
    for name, value in found:
        totals[name] = totals.get(name, 0.0) + float(value)
    return totals


@pytest.fixture(scope="module")
def events(chain, detector, sample_cells):
    """Return input tensors and the standalone chain's output for events of several sizes."""
    ordered = around_the_beam(sample_cells, detector)
    cells = [first_cells(ordered, slice(n)) for n in SIZES]
    return [(wire.pack_cells(c), wire.pack_result(chain.run(c))) for c in cells]


def plan(seed):
    """Return (event, way to be bad or None) of each request; every way occurs."""
    random = np.random.default_rng(seed)
    requests = [(int(random.integers(len(SIZES))), None) for _ in range(N_REQUESTS)]
    ways = list(BAD)
    for k, place in enumerate(random.permutation(N_REQUESTS)[: int(BAD_SHARE * N_REQUESTS)]):
        requests[place] = (int(random.integers(1, len(SIZES))), ways[k % len(ways)])
    return requests


def run_client(url, share, events):
    """Send one client's share; return what is wrong with the answers."""
    import tritonclient.grpc as grpc
    from tritonclient.utils import InferenceServerException

    wrong = []
    with grpc.InferenceServerClient(url) as client:
        for event, way in share:
            tensors, expected = events[event]
            try:
                found = infer(client, tensors if way is None else BAD[way][0](tensors))
            except InferenceServerException as error:
                if way is None or not re.search(BAD[way][1], error.message(), re.DOTALL):
                    wrong.append((event, way, error.message()))
                elif error.status() != "StatusCode.INVALID_ARGUMENT":
                    wrong.append((event, way, error.status()))
                continue
            if way is not None:
                wrong.append((event, way, "was accepted"))
            elif any(found[n].tobytes() != expected[n].tobytes() or found[n].shape != expected[n].shape for n in found):
                wrong.append((event, way, "other bits than the standalone chain"))
    return wrong


def test_concurrent_clients_with_bad_events(server, grpc_url, events):
    requests = plan(seed=5)
    assert {way for _, way in requests} == {None, *BAD}
    assert all(len(expected["TRK_PARAMS"]) > 0 for _, expected in events[-2:])  # the comparison is not of nothing
    before = counters(server)
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        shares = [requests[k::N_CLIENTS] for k in range(N_CLIENTS)]
        wrong = [problem for found in pool.map(lambda s: run_client(grpc_url, s, events), shares) for problem in found]
    assert wrong == []
    after = counters(server)
    done = {name: after[name] - before.get(name, 0.0) for name in after}
    refused_by_the_server_itself = sum(way in ("three columns", "wrong rank", "wrong dtype") for _, way in requests)
    n_bad = sum(way is not None for _, way in requests)
    assert done["traccc_py_requests_total"] == N_REQUESTS - refused_by_the_server_itself
    assert done["traccc_py_refused_total"] == n_bad - refused_by_the_server_itself
    assert done["traccc_py_failed_total"] == 0
    assert done["traccc_py_batches_total"] < 0.8 * done["traccc_py_requests_total"], "batches of one event"
    assert done["traccc_py_stage_seconds_total"] > 0
    assert done["traccc_py_busy_seconds_total"] > 0
    assert done["traccc_py_requests"] == done["traccc_py_requests_total"]  # the old name, for one release


def test_missing_tensor_is_named(grpc_url, events):
    import tritonclient.grpc as grpc
    from tritonclient.utils import InferenceServerException

    with grpc.InferenceServerClient(grpc_url) as client:
        with pytest.raises(InferenceServerException, match="CELL_PROPERTIES"):
            infer(client, {"CELL_POSITIONS": events[1][0]["CELL_POSITIONS"]})
        with pytest.raises(InferenceServerException, match="WIBBLE"):
            infer(client, {**events[1][0], "WIBBLE": events[1][0]["CELL_POSITIONS"]})


OLD_METRICS = re.compile(r"traccc_py_((calls|requests|refused|failed|cells|tracks|restarts)\b|\w+_milliseconds)")


def test_metrics_follow_the_conventions(server):
    """Those of Prometheus; the names of version 0.1 are there for one release."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics") as answer:
        lines = [line for line in answer.read().decode().splitlines() if "traccc_py_" in line]
    new = [line for line in lines if not OLD_METRICS.search(line)]
    assert len(new) > 40
    assert len(new) < len(lines)
    assert not any("instance=" in line.replace("model_instance=", "") for line in new)
    kinds = {line.split()[2]: line.split()[3] for line in new if line.startswith("# TYPE")}
    assert all((kind == "counter") == name.endswith("_total") for name, kind in kinds.items())
    if shutil.which("promtool") is not None:
        command, text = ["promtool", "check", "metrics"], "\n".join(new) + "\n"
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
