"""Every study runs to its end on a tiny sample and writes what it says."""

import ast
import contextlib
import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from studies import (
    chain_time,
    detray_time,
    gnn_pictures,
    launch_cost,
    launch_list,
    losses,
    make_sample_event,
    missing_hits,
    mixed_events,
    occupancy,
    performance_tables,
    reach,
    run_rate,
    scan_settings,
    seeding_methods,
    service_abuse,
    service_fairness,
    service_load,
    service_time,
    spacepoints_of_hits,
    toy_samples,
    tuned_by_hand,
)
from studies.common import detector_in
from tests.service.conftest import require_server
from traccc_py.cli.app import app
from traccc_py.data.sample import SAMPLE_DIRECTORY, sample_event_path
from traccc_py.files import write_files
from traccc_py.simulation.generators.pileup import CollisionConfig
from traccc_py.simulation.samples import SampleConfig, make_sample

STUDIES = Path(__file__).resolve().parents[2] / "studies"
HELPERS = {"__init__", "acts_chain", "acts_geometry", "common", "gpu_devices"}
MAX_BATCH_US = 5000  # 720 on two quiet cores; the limit is for busy ones


def only_result(folder, study):
    """Return the content of the one file of results of a study; what every study writes is there."""
    (path,) = folder.glob(f"*-{study}.json")
    content = json.loads(path.read_text())
    assert {"date", "commit", "versions", "cpu", "n_cores", "load_average"} <= set(content)
    return content


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Return the folder of a Z to two muons, without pile-up."""
    pytest.importorskip("pythia8mc", reason="pythia8mc is not installed: pip install traccc-py[simulation]")
    folder = tmp_path_factory.mktemp("sample") / "zmumu"
    config = SampleConfig.of_collisions(CollisionConfig("zmumu", pileup=0.0), seed=2)
    assert len(list(make_sample(folder, detector_in("odd"), config, 1))) == 1
    return folder


def test_chain_time(tmp_path):
    chain_time.main(muons=5, repeats=2, threads=[1], detector="telescope", output=tmp_path)
    (case,) = only_result(tmp_path, "chain_time")["cases"]
    assert case["threads"] == 1
    assert case["total_milliseconds"] > 0
    assert case["peak_memory_mb"] > 50


def test_toy_samples(tmp_path):
    toy_samples.main(n_muons=50, assignments=["finding.chi2_max=24.0"], output=tmp_path)
    found = only_result(tmp_path, "toy_samples")
    assert list(found["rows"]) == ["50 muons", "10 muons, 2.5 times the size", "10 muons, 0.5 times the size"]
    assert all(row["efficiency_3"] > 90 for row in found["rows"].values())
    assert found["config"]["finding"]["chi2_max"] == 24


def test_detray_time(tmp_path):
    detray_time.main(repeats=1, detector="toy", output=tmp_path)
    found = only_result(tmp_path, "detray_time")
    assert min(found["first_seconds"], found["second_seconds"], found["write_seconds"]) > 0


def test_launch_cost(tmp_path):
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")
    launch_cost.main(threads=2, repeats=30, output=tmp_path)
    found = only_result(tmp_path, "launch_cost")
    assert len(found["launches"]) == len(launch_cost.N_ARRAYS) * len(launch_cost.SIZES)
    plain, replayed = found["batch"]
    assert (plain["graphs"], replayed["graphs"]) == (False, True)
    assert plain["launches"] > 30
    assert replayed["launches"] == 0
    assert 0 < replayed["microseconds"] < plain["microseconds"] < MAX_BATCH_US


@pytest.mark.long
def test_launch_list(tmp_path):
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{launch_list.BEGIN}\nold\n{launch_list.END}\nafter\n")
    launch_list.main(muons=3, page=page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| `fitting_fit_track` | 1 |" in text


def test_losses(sample, tmp_path):
    losses.main(folder=sample, events=1, output=tmp_path)
    found = only_result(tmp_path, "losses")
    causes = {name: n for name, n in found["lost"].items() if name not in {"selected", "lost"}}
    assert found["lost"]["selected"] >= 2  # the muons
    assert sum(causes.values()) == found["lost"].get("lost", 0)
    assert found["fakes"]["tracks"] >= 2


def test_reach(sample, tmp_path):
    reach.main(by="radius", folder=[sample], config=["default", "displaced"], events=1, output=tmp_path)
    found = only_result(tmp_path, "reach_radius")["samples"][sample.name]
    assert next(sum(b["n"] for b in row["bins"]) for row in found.values()) >= 2  # the muons
    assert found["displaced"]["milliseconds"] > 0


def test_reach_by_pt(tmp_path):
    reach.main(by="pt", pions=20, config=["low-pt"], events=1, output=tmp_path / "pt")
    (row,) = only_result(tmp_path / "pt", "reach_pt")["samples"]["20 pions"].values()
    assert sum(b["found"] for b in row["bins"]) >= 10
    with pytest.raises(typer.BadParameter, match="expected one of radius, pt"):
        reach.main(by="eta", output=tmp_path)


def test_run_rate(sample, tmp_path):
    run_rate.main(folder=sample, events=4, workers=1, form=["csv", "parquet"], repeats=1, output=tmp_path)
    (found,), paired = (only_result(tmp_path, "run_rate")[name] for name in ("rounds", "paired"))
    for form in ("csv", "parquet"):
        assert found[form]["events_per_second"] > 0
        assert found[form]["largest_process_mb"] > 100
        assert paired[form]["chain_alone"] > 0
        assert paired[form]["besides"] > 0
    assert found["alone"]["events_per_second"] > 0


def test_sample_event_is_that_of_the_package(tmp_path):
    paths = make_sample_event.write_sample(tmp_path)
    assert {path.name for path in paths} <= {path.name for path in SAMPLE_DIRECTORY.iterdir()}


def test_missing_hits(tmp_path):
    names = ["all there", "10% lost", "pixel barrel 2 dead", "5% of columns*"]
    missing_hits.main(only=names, muons=30, events=1, output=tmp_path)
    whole, lost, dead, columns = only_result(tmp_path, "missing_hits")["rows"]
    assert whole["n_found"] == whole["n_particles"] == 30
    assert lost["n_found"] < whole["n_found"]
    assert 0.9 * dead["n_particles"] <= dead["n_found"] <= dead["told"]["n_found"]
    assert columns["n_found"] <= columns["told"]["n_found"]
    assert whole["told"] is None


def test_mixed_events(sample, tmp_path):
    mixed_events.main(folder=[sample], kind=["muon", "zmumu"], share=0.01, repeats=1, output=tmp_path)
    found = only_result(tmp_path, "mixed_events")["events"]
    assert [event["kind"] for event in found] == ["0 muons", "1 muons", "50 muons", "5000 muons", "zmumu mu=0"]
    assert found[0]["cells"] == 0
    assert found[-1]["counts"]["tracks"] >= 2


def test_occupancy(sample, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TRACCC_PY_REFERENCE_DATA", raising=False)
    occupancy.main(folder=sample, events=1, muon_events=1, output=tmp_path)
    means = only_result(tmp_path, "occupancy")["means"]
    assert means["hits"] > means["clusters in pixels"] > 0
    assert "long strip   simulated" in capsys.readouterr().out


def test_table_of_muons_has_the_selections_of_the_command(tmp_path, capsys):
    performance_tables.muon_table(pt=[10.0], muons=20, output=tmp_path)
    (found,) = only_result(tmp_path, "performance_of_muons")["by_pt_gev"]["10"]["results"].values()
    assert found["tracks"]["all"]["n_particles"] == 20
    assert found["selections"]["reconstructable"]["min_modules"] == 7
    assert f"| 10 | {100 * found['tracks']['reconstructable']['efficiency']:.2f} |" in capsys.readouterr().out


def test_table_of_collisions_has_the_selections_of_the_command(sample, tmp_path, capsys):
    performance_tables.collision_table(sample=[sample], events=1, output=tmp_path)
    (found,) = only_result(tmp_path, "performance_of_collisions")["results"].values()
    assert found["tracks"]["muons"]["n_particles"] == 2
    assert f"(of {found['tracks']['central']['n_particles']})" in capsys.readouterr().out


def test_gnn_pictures(tmp_path):
    """Of what the evaluation writes."""
    pytest.importorskip("pythia8mc", reason="pythia8mc is not installed: pip install traccc-py[simulation]")
    words = ["gnn", "evaluate", "--pileup", "0", "--events", "1", "--samples", tmp_path, "--json", tmp_path / "n.json"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    (sample,) = (path.parent for path in tmp_path.glob("**/*-hits.csv"))
    gnn_pictures.main(tmp_path / "n.json", sample, "odd", tmp_path / "pictures")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "pictures").iterdir()}
    assert set(sizes) == {"gnn_efficiency.png", "gnn_training.png", "gnn_graph.png"}
    assert min(sizes.values()) > 5000


def test_tuned_by_hand(tmp_path, monkeypatch):
    write_files({tmp_path / "settings.toml": b"[clusterization]\npixel_sigma_floor = 0.05\n"})
    monkeypatch.setattr(tuned_by_hand, "GRID", {"finding.chi2_max": (2.0, 25.0)})
    tuned_by_hand.main(folder=tmp_path, particles=20, output=tmp_path / "out")
    found = only_result(tmp_path / "out", "tuned_by_hand")
    assert [row["settings"] for row in found["rows"]] == 2 * ["default", "tune", "by hand"]
    default, tuned, by_hand = found["rows"][:3]
    assert by_hand["loss"] <= default["loss"]
    assert default["muons %"] > 80
    assert tuned["mean p"] != default["mean p"]


def test_scan_settings(sample, tmp_path):
    scan_settings.main(folder=sample, vary=["seeding.impact_max=1,5"], muons=4, events=1, output=tmp_path)
    rows = only_result(tmp_path, "scan_settings")["rows"]
    assert [(row["setting"], row["value"]) for row in rows] == [
        ("all as they are", ""), ("seeding.impact_max", 1), ("seeding.impact_max", 5),
    ]  # fmt: skip
    assert all(row["tracks"] >= 2 for row in rows)


def test_seeding_methods(sample, tmp_path):
    seeding_methods.main(folder=sample, events=1, repeats=1, output=tmp_path)
    rows = only_result(tmp_path, "seeding_methods")["rows"]
    assert [row["method"] for row in rows] == ["grid", "layer_pairs"]
    assert all(row["tracks"] >= 2 and 0 < row["seeding ms"] < row["all ms"] for row in rows)
    assert rows[0]["seeds"] != rows[1]["seeds"]


def test_spacepoints_of_hits(sample, tmp_path):
    spacepoints_of_hits.main(sample, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "event000000000-measurements.csv", "event000000000-spacepoints.csv",
    ]  # fmt: skip


@pytest.mark.service
def test_service_time(tmp_path):
    require_server()
    service_time.main(muons=2, repeats=1, threads=1, output=tmp_path)
    found = only_result(tmp_path, "service_time")
    assert set(found["milliseconds"]) == set(service_time.WAYS)
    assert (tmp_path / "service_time.log").stat().st_size > 0


@pytest.mark.service
def test_service_load_keeps_its_log_beside_the_results(tmp_path, monkeypatch):
    require_server()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    service_load.main(minutes=0.02, clients=1, muons=[2], period=1, output=tmp_path / "there")
    found = only_result(tmp_path / "there", "service_load")
    assert (found["errors"], found["wrong_answers"]) == ([], 0)
    assert (tmp_path / "there" / "service_load.log").stat().st_size > 0
    assert list(here.iterdir()) == []


@pytest.mark.service
def test_service_abuse(tmp_path):
    require_server()
    service_abuse.main(minutes=0.05, good=1, bad=1, kill_instance=0, kill_server=0, instances=1, output=tmp_path)
    found = only_result(tmp_path, "service_abuse")
    assert (found["errors"], found["wrong"], found["left_behind"], found["exit_code"]) == ([], 0, [], 0)
    assert found["answers"] > 0


def test_kills_are_spread_over_the_time():
    planned = service_abuse.schedule(10.0, 4, 1)
    assert planned == [(1.0, "instance"), (3.0, "instance"), (5.0, "instance"), (7.0, "instance"), (9.0, "server")]
    assert service_abuse.schedule(10.0, 0, 0) == []


@pytest.mark.service
def test_service_fairness(tmp_path):
    require_server()
    with contextlib.suppress(typer.Exit):  # its verdict needs a quiet machine and large events
        service_fairness.main(large=sample_event_path(), clients=2, seconds=1.0, threads=1, output=tmp_path)
    found = only_result(tmp_path, "service_fairness")
    assert found["small_beside_large"]["requests"] > 0
    assert found["large_without_small"]["errors"] == found["large_beside_small"]["errors"] == []


def test_readme_has_a_line_for_each_study():
    named = re.findall(r"^\| `python (?:-m studies\.|studies/)(\w+)", (STUDIES / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted({path.stem for path in STUDIES.glob("*.py")} - HELPERS)


def test_every_study_is_imported_by_a_test():
    imported = {"gpu"}  # is run as a program
    for path in STUDIES.parent.glob("tests/**/test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "studies":
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("studies."):
                imported.add(node.module.removeprefix("studies."))
    assert {path.stem for path in STUDIES.glob("*.py")} - HELPERS - imported == set()
