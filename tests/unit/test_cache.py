"""The disk cache: no miss in a second process, no stale code after an edit in another file."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import traccc_py
from traccc_py.chain import TrackingChain
from traccc_py.device import cache
from traccc_py.device.cpu.compile import compile_loops, missing_loops
from traccc_py.device.signatures import record_signatures

STAGE = """
from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import Scratch, kernel
from traccc_py.kernels.helper import shifted


class P(NamedTuple):
    x: Any
    out_y: Any


@kernel(scratch=(Scratch(2),))
def _shift(i, p, s):
    s[0] = shifted(p.x[i])
    p.out_y[i] = s[0]


@kernel()
def _double(i, p):
    p.out_y[i] = shifted(p.x[i]) + p.x[i]


def payload():
    return P(np.zeros(3, np.float32), np.zeros(3, np.float32))
"""
HELPER = """
from traccc_py.device.kernel import device_function, scalar

SHIFT = scalar({shift})


@device_function
def shifted(x):
    return x + SHIFT
"""
CPU = """
import ast
import json
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.kernels import stage

device, results = CpuDevice(threads=1), []
for kernel in (stage._shift, stage._double):
    payload = stage.payload()
    device.launch(kernel, 3, payload)
    results.append(float(payload.out_y[0]))
stats = [loop.function.stats for loop in device._loops.values()]
misses, hits = (sum(sum(getattr(s, name).values()) for s in stats) for name in ("cache_misses", "cache_hits"))
print(json.dumps({"results": results, "misses": misses, "hits": hits}))
"""
AHEAD = """
from traccc_py.device.cpu.compile import compile_loops, missing_loops
from traccc_py.device.signatures import record_signatures
from traccc_py.kernels import stage

kernels = (stage._shift, stage._double)
signatures = record_signatures(lambda device: [device.launch(kernel, 0, stage.payload()) for kernel in kernels])
compile_loops({name: signatures[name] for name in ("stage_shift", "stage_double")}, processes=PROCESSES)
print(0)
"""
CUDA = """
import ast
import json
from traccc_py.device.cuda import compile as cuda_compile
from traccc_py.device.cuda.layout import payload_type
from traccc_py.kernels import stage

calls, original = [], cuda_compile._compile_ptx
cuda_compile._compile_ptx = lambda *a: calls.append(a) or original(*a)
done = [cuda_compile.compile_kernel(k, payload_type(stage.payload()), (8, 0)) for k in (stage._shift, stage._double)]
print(json.dumps({"misses": len(calls), "registers": [d.registers for d in done], "paths": [d.path for d in done],
                  "ptx": [d.ptx for d in done]}))
"""


@pytest.fixture
def package(tmp_path):
    """Return a function that runs code in a new process with a copy of the package's device layer and two kernels."""
    source = Path(traccc_py.__file__).parent
    target = tmp_path / "src" / "traccc_py"
    shutil.copytree(source / "device", target / "device", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("errors.py", "files.py", "workers.py"):
        shutil.copy(source / name, target)
    (target / "kernels").mkdir()
    (target / "__init__.py").touch()
    (target / "kernels" / "__init__.py").touch()
    (target / "kernels" / "stage.py").write_text(STAGE)

    def run(code, shift=1):
        (target / "kernels" / "helper.py").write_text(HELPER.format(shift=shift))
        folders = {"PYTHONPATH": str(tmp_path / "src"), "TRACCC_PY_CACHE_DIR": str(tmp_path / "cache")}
        environment = {**os.environ, **folders}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run.files = lambda: {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    return run


def test_second_process_has_no_miss(package):
    first = package(CPU)
    files = package.files()
    second = package(CPU)
    assert first == {"results": [1.0, 1.0], "misses": 2, "hits": 0}
    assert second == {"results": [1.0, 1.0], "misses": 0, "hits": 2}
    assert package.files() == files


@pytest.mark.parametrize("processes", [1, 2])
def test_launches_after_compiling_ahead_have_no_miss(package, processes):
    package(AHEAD.replace("PROCESSES", str(processes)))
    assert package(CPU) == {"results": [1.0, 1.0], "misses": 0, "hits": 2}


def test_edited_helper_in_another_file_changes_the_result(package):
    assert package(CPU)["results"] == [1.0, 1.0]
    edited = package(CPU, shift=5)
    assert edited["results"] == [5.0, 5.0]
    assert edited["misses"] == 2
    restored = package(CPU)
    assert (restored["results"], restored["misses"]) == ([1.0, 1.0], 0)


def test_second_process_compiles_nothing_for_cuda(package):
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")
    first = package(CUDA)
    files = package.files()
    second = package(CUDA)
    assert (first["misses"], second["misses"]) == (2, 0)
    assert second["paths"] == first["paths"]
    assert package.files() == files
    edited = package(CUDA, shift=5)
    assert edited["misses"] == 2
    assert edited["ptx"] != first["ptx"]


def test_process_whose_sources_are_edited_keeps_its_code_to_itself(package, tmp_path):
    package(CPU)
    files = package.files()
    touch = (
        "import pathlib, time, traccc_py.kernels.stage\ntime.sleep(0.1)  # file times have steps of some ms\n"
        f"pathlib.Path({str(tmp_path)!r}, 'src/traccc_py/errors.py').touch()\n"
    )
    assert package(touch + CPU)["misses"] == 2
    assert package.files() == files
    assert package(CPU)["misses"] == 0


def test_kernels_outside_the_package_are_not_kept(package, tmp_path):
    (tmp_path / "elsewhere.py").write_text(STAGE)
    code = CPU.replace("from traccc_py.kernels import stage", "import elsewhere as stage")
    for _ in range(2):
        assert package(code)["hits"] == 0


def test_chosen_folder_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path / "new"))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    assert cache.cache_root() == tmp_path / "new"
    assert cache.cache_directory("cpu") == tmp_path / "new" / f"cpu-{cache.source_hash()}"


def test_user_cache_folder_falls_back_to_a_temporary_one(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.delenv("TRACCC_PY_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache.cache_root().parent == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "good"))
    assert cache.cache_root() == tmp_path / "good" / "traccc_py"


def test_folders_unused_for_long_are_removed_with_the_first_use_of_a_new_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    names = ("cpu-old", "cpu-recent", "cuda-sm90-old")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.code").touch()
    for name in ("cpu-old", "cuda-sm90-old"):
        os.utime(tmp_path / name, (0, 0))
    used = cache.cache_directory("cpu")
    assert {p.name for p in tmp_path.iterdir()} == {"cpu-recent", "cuda-sm90-old", used.name}


def test_use_of_a_folder_is_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    folder = cache.cache_directory("cpu")
    os.utime(folder, (0, 0))
    assert cache.cache_directory("cpu") == folder
    assert folder.stat().st_mtime > 0


def _module_path(name):
    """Return where a module lies in the package."""
    path = Path(traccc_py.__file__).parent.parent / Path(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_no_kernel_can_use_code_that_is_not_in_the_key():
    package = Path(traccc_py.__file__).parent
    found, n_imports = [], 0
    for path in [*(package / "kernels").rglob("*.py"), *(package / "device").rglob("*.py")]:
        if not cache.is_packaged(str(path)):  # launches and allocates, and must hold nothing that is compiled
            assert not re.search(
                r"^@(kernel|device_function|block_function|intrinsic|numba)", path.read_text(), re.MULTILINE
            )
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("traccc_py"):
                n_imports += 1
                if not cache.is_packaged(str(_module_path(node.module))):
                    found += [(path.name, a.name) for a in node.names if not a.name.endswith("Config")]
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names if a.name.startswith("traccc_py")]
                found += [(path.name, n) for n in names if not cache.is_packaged(str(_module_path(n)))]
    assert n_imports > 100
    assert found == []


def test_what_is_compiled_for_the_host_is_in_the_key():
    """Else each process compiles it anew."""
    package = Path(traccc_py.__file__).parent
    compiled = re.compile(r"^@(kernel|device_function|host_loop|host_function)\b", re.MULTILINE)
    files = [path for path in package.rglob("*.py") if compiled.search(path.read_text())]
    assert len(files) > 30
    assert [path.name for path in files if not cache.is_packaged(str(path))] == []


def test_folders_without_files_are_no_compiled_kernels(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    folder = cache.cache_directory("cpu")
    folder.mkdir(parents=True, exist_ok=True)
    assert cache.is_empty("cpu")
    (folder / "loop.code").write_text("")
    assert not cache.is_empty("cpu")
    assert cache.is_empty("cuda")


def test_read_only_user_cache_is_used_if_it_holds_code_of_these_sources(tmp_path, monkeypatch):
    monkeypatch.delenv("TRACCC_PY_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cache, "_is_writable", lambda folder: folder != tmp_path / "home" / "traccc_py")
    assert cache.cache_root() == tmp_path / f"traccc_py-{os.getuid()}"
    (tmp_path / "home" / "traccc_py" / f"cpu-{cache.source_hash()}").mkdir(parents=True)
    assert cache.cache_root() == tmp_path / "home" / "traccc_py"


def test_temporary_cache_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.delenv("TRACCC_PY_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "traccc_py-12345").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    if (tmp_path / "traccc_py-12345").stat().st_uid != 12345:
        assert cache.cache_root().name.startswith("traccc_py-")
        assert cache.cache_root() != tmp_path / "traccc_py-12345"


def test_loops_are_compiled_by_other_processes(tmp_path, monkeypatch):
    name = "seeding_spacepoint_formation_count_spacepoints"
    found = record_signatures(lambda device: TrackingChain("telescope", device=device).initialize())
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    told = []
    assert list(missing_loops({name: found[name]})) == [name]
    compile_loops({name: found[name]}, processes=2, on_compiled=told.append)
    assert told == [name]
    assert missing_loops({name: found[name]}) == {}
    assert len(list(tmp_path.rglob(f"{name}-*.code"))) == 1


def test_loops_compiled_by_other_processes_that_cannot_be_written_come_back_in_memory(tmp_path, monkeypatch, caplog):
    name = "seeding_spacepoint_formation_count_spacepoints"
    found = record_signatures(lambda device: TrackingChain("telescope", device=device).initialize())
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "_unkept", {})
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    compile_loops({name: found[name]}, processes=2)
    assert missing_loops({name: found[name]}) == {}
    assert [path.suffix for path in cache.unkept()] == [".code"]
    assert len(caplog.records) == 1
