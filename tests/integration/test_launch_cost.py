"""`benchmarks/bench_launch.py`: what a batch costs the host before the GPU works, the driver left out."""

import re

import pytest

from benchmarks.bench_launch import bench_chain

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

MAX_US = 5000  # 720 on two quiet cores; the limit is for busy ones


def test_host_asks_for_a_batch_in_little_time(capsys):
    bench_chain()
    found = re.findall(r"batch of the chain: (\d+) launches, (\d+) us, graphs (\w+)", capsys.readouterr().out)
    (n_launches, plain, _), (n_replayed, graph, _) = sorted(found, key=lambda case: case[2])
    assert int(n_launches) > 30
    assert int(n_replayed) == 0
    assert 0 < int(graph) < int(plain) < MAX_US
