"""Summaries of load, fed with runs as they went wrong: no trap gives a number that a figure shows."""

import json
import math
import re

import numpy as np
import pytest

from traccc_py.errors import ServiceError
from traccc_py.studies.figures import draw_study, usable_points
from traccc_py.studies.load import LoadRun, Request, confounded, problems_of, summary_of
from traccc_py.studies.monitor import latency_split
from traccc_py.studies.perf_analyzer import read_profile
from traccc_py.studies.programs import metric_sums


def steady(n=200, seconds=10.0, latency=0.1, **changes):
    """Return a run at concurrency 2 with nothing wrong."""
    ends = np.linspace(0, seconds, n, endpoint=False) + seconds / (2 * n)
    requests = [Request(end - latency, end, True) for end in ends.tolist()]
    return LoadRun(
        **{
            "generator": "asyncio",
            "concurrency": 2,
            "begin": 0.0,
            "end": seconds,
            "system_seconds": seconds,
            "requests": requests,
            "client_busy": 0.2,
            **changes,
        }
    )


def test_a_good_run():
    found = summary_of(steady())
    assert found["problems"] == ""
    assert found["throughput"] == pytest.approx(20)
    assert [found[name] for name in ("mean_ms", "p50_ms", "p99_ms")] == pytest.approx([100] * 3)
    assert (found["requests"], found["errors"]) == (200, 0)


def test_errors_are_no_successes():
    """Errors come faster than answers: counted as answers, they would double the rate."""
    good = steady()
    failures = [
        Request(t, t + 0.001, False, "UNAVAILABLE: Stub process is not healthy") for t in np.arange(0, 10, 0.05)
    ]
    found = summary_of(steady(requests=[*good.requests, *failures]))
    assert found["throughput"] == pytest.approx(20)
    assert found["p50_ms"] == pytest.approx(100)
    assert "200 of 400 requests failed, the first with: UNAVAILABLE: Stub process" in found["problems"]


def test_nothing_succeeded():
    failures = [Request(t, t + 0.001, False, "refused") for t in np.arange(0, 10, 0.05)]
    found = summary_of(steady(requests=failures))
    assert found["problems"] == "no request succeeded: refused"
    assert math.isnan(found["throughput"])
    assert math.isnan(found["p99_ms"])
    assert summary_of(steady(requests=[]))["problems"] == "no request succeeded"


def test_a_cold_first_window():
    """The first quarter of the time passes while the server compiles, or its buffers grow."""
    requests = [request for request in steady().requests if request.end > 2.4]
    assert problems_of(steady(requests=requests)) == ["the first quarter has 2 answers, the others 50: it was not warm"]
    few = [Request(t, t, True) for t in (0.5, 3, 4, 6, 7, 9)]  # so few answers that chance explains it
    assert problems_of(steady(requests=few)) == []


def test_few_answers():
    assert problems_of(steady(n=3)) == ["only 3 requests ended in 10.0 s; measure longer"]


@pytest.mark.parametrize("seconds", [12.0, 8.0, -3600.0])
def test_jumping_clock_of_the_system(seconds):
    (problem,) = problems_of(steady(system_seconds=seconds))
    assert re.search("a clock jumped", problem)
    assert problems_of(steady(system_seconds=10.2)) == []


def test_requests_that_end_before_they_begin():
    run = steady()
    requests = [*run.requests[:-1], Request(9.0, 8.0, True)]
    assert problems_of(steady(requests=requests)) == ["a request ended before it began: the clock jumped"]


def test_a_generator_that_is_the_limit():
    assert problems_of(steady(client_busy=0.99)) == [
        "the generator used 99% of a core: it is the limit, not the service"
    ]


def test_answers_outside_of_the_measured_time_do_not_count():
    run = steady()
    late = [Request(9.9, 10.5 + k, True) for k in range(50)]
    assert summary_of(steady(requests=[*run.requests, *late]))["throughput"] == pytest.approx(20)


def test_point_n_at_concurrency_n():
    """As in a published figure: 8 instances were measured with 8 clients, 1 with 1."""
    points = [
        {"curve": "service", "instances": n, "concurrency": n, "throughput": 4.0 + n, "problems": "", "repeat": 0}
        for n in (1, 2, 4)
    ]
    assert confounded(points, "instances", ("concurrency",)) == [
        "concurrency is 1, 2, 4 at different instances; expected one value"
    ]
    assert confounded(points, "concurrency", ("concurrency",)) == []
    with pytest.raises(ServiceError, match="no figure: concurrency is 1, 2, 4 at different instances"):
        draw_study("instances", points, 2)


def test_no_figure_of_broken_points():
    good = {"curve": "service", "throughput": 5.0, "problems": ""}
    bad = {"curve": "service", "throughput": 500.0, "problems": "no request succeeded"}
    assert usable_points([good, bad, {**good, "throughput": None}]) == [good]
    with pytest.raises(ServiceError, match="no point of the study can be used, so there is no figure: no request"):
        draw_study("instances", [bad], 2)
    with pytest.raises(ServiceError, match="no point"):
        draw_study("instances", [], 2)


def profile(*levels, n=100, begin=1_000.0, latency=0.1):
    """Return a file of perf_analyzer's --profile-export-file."""
    entries = [
        {
            "timestamp": round(1e9 * (begin + 0.05 * k)),
            "response_timestamps": [round(1e9 * (begin + 0.05 * k + latency))],
        }
        for k in range(n)
    ]
    experiments = [{"experiment": {"mode": "concurrency", "value": level}, "requests": entries} for level in levels]
    return json.dumps({"experiments": experiments, "version": "2.51.0"})


def test_profiles_of_perf_analyzer():
    run = read_profile(profile(2), 2, warm_up=1.0)
    found = summary_of(run)
    assert found["throughput"] == pytest.approx(20, rel=0.02)  # its own --request-count would say 25, or 20, or 16
    assert found["p50_ms"] == pytest.approx(100)
    assert found["problems"] == ""
    assert found["requests"] < 82


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (profile(1, 2, 4), r"at concurrency \[1, 2, 4\]; expected 2 alone"),  # a range: the mix of events changes
        (profile(1), r"at concurrency \[1\]; expected 2"),
        ("", "can't be read"),
        ("{}", "can't be read"),
        ('{"experiments": [{"experiment": {"value": 2}, "requests": [{}]}]}', "can't be read"),
    ],
)
def test_bad_profiles(text, words):
    with pytest.raises(ServiceError, match=words):
        read_profile(text, 2, 0.0)


def test_profiles_without_answers():
    text = profile(2).replace('"response_timestamps": [', '"response_timestamps": [], "x": [')
    assert summary_of(read_profile(text, 2, 0.0))["problems"].startswith("no request succeeded")
    assert problems_of(read_profile(profile(2, n=0), 2, 0.0)) == ["no request succeeded"]


METRICS = """\
# TYPE traccc_py_batches_total counter
traccc_py_batches_total{model="traccc-gpu",model_instance="a"} 3
traccc_py_batches_total{model="traccc-gpu",model_instance="b"} 4
traccc_py_stage_seconds_total{model="traccc-gpu",model_instance="a",stage="finding"} 1.5
traccc_py_stage_seconds_total{model="traccc-gpu",model_instance="b",stage="finding"} 0.5
nv_inference_count{model="traccc-gpu"} 7
"""


def test_metrics_are_added_over_instances():
    assert metric_sums(METRICS) == {"traccc_py_batches_total": 7, "stage finding": 2.0}


def test_latency_is_split():
    grown = {
        "traccc_py_answered_total": 20,
        "traccc_py_requests_total": 20,
        "traccc_py_batches_total": 10,
        "traccc_py_latency_seconds_total": 2.0,
        "traccc_py_busy_seconds_total": 0.6,
        "stage preparation": 0.1,
        "stage finding": 0.35,
        "stage output": 0.05,
    }
    found = latency_split(grown, 110.0)
    expected = {"transfer_ms": 10, "queue_ms": 40, "input_ms": 12, "compute_ms": 42, "output_ms": 6, "mean_batch": 2}
    assert found == pytest.approx(expected)
    assert sum(value for name, value in found.items() if name.endswith("_ms")) == pytest.approx(110)
    assert latency_split({}, 1.0) == {}
