"""Caches that are damaged, full, read-only or shared: no run ends for that, and what is read is what was written."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.cpu import CPUContext

import traccc_py
from tests.unit.damages import DAMAGES
from traccc_py.device import cache
from traccc_py.device.cpu.kept_code import NotKeptError, is_kept, keeps_code, without_compiling
from traccc_py.files import write_files
from traccc_py.geometry import build_detector

ARRAY = numba.types.Array(numba.types.float64, 1, "C")
ANYONE = 0o755
NOBODY = 65534
# Compiled as root, a first function loads what Numba imports late; then rights bind, as they do not for root.
WITHOUT_RIGHTS = f"""
import logging, os, sys
import numba
import tests.unit.test_cache_damage as test
numba.njit(lambda x: x)(1)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""


def doubled(x):
    return 2 * x.sum()


def halved(x):
    return x.sum() / 2


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Let each test begin with nothing in memory."""
    monkeypatch.setattr(cache, "_unkept", {})


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "traccc_py")
    return lambda: [record.getMessage() for record in caplog.records]


def run(folder, function=doubled):
    """Run a function as a new process would; return its result and whether it was compiled."""
    dispatcher = keeps_code(numba.njit(function), folder)
    return dispatcher(np.ones(3)), sum(dispatcher.stats.cache_misses.values()) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_code_is_compiled_again_and_replaced(tmp_path, damage, warnings):
    assert run(tmp_path) == (6.0, True)
    assert run(tmp_path) == (6.0, False)
    (file,) = tmp_path.iterdir()
    DAMAGES[damage](file)
    assert not is_kept(keeps_code(numba.njit(doubled), tmp_path), (ARRAY,))
    assert run(tmp_path) == (6.0, True)
    assert run(tmp_path) == (6.0, False)
    assert is_kept(keeps_code(numba.njit(doubled), tmp_path), (ARRAY,))
    assert warnings() == []


def test_what_is_only_loaded_needs_nothing_that_compiles(tmp_path, monkeypatch):
    """It would take most of the time of a start; a function that makes arrays needs it."""
    options = {"nogil": True, "_nrt": False}
    keeps_code(numba.njit(doubled, **options), tmp_path)(np.ones(3))
    refreshed = []
    monkeypatch.setattr(CPUContext, "refresh", lambda _: refreshed.append(1))
    loaded = keeps_code(numba.njit(doubled, **options), tmp_path)
    assert loaded(np.ones(3)) == 6.0
    assert (sum(loaded.stats.cache_hits.values()), refreshed) == (1, [])
    assert not is_kept(keeps_code(numba.njit(halved), tmp_path), (ARRAY,))
    assert len(refreshed) == 1


def test_nothing_is_compiled_where_that_is_not_wanted(tmp_path):
    with without_compiling(), pytest.raises(NotKeptError, match="doubled"):
        run(tmp_path)
    run(tmp_path)
    with without_compiling():
        assert run(tmp_path) == (6.0, False)
    (file,) = tmp_path.iterdir()
    DAMAGES[next(iter(DAMAGES))](file)
    with without_compiling(), pytest.raises(NotKeptError):
        run(tmp_path)


def test_code_of_another_function_is_not_taken(tmp_path):
    run(tmp_path)
    (of_doubled,) = tmp_path.iterdir()
    run(tmp_path, halved)
    (of_halved,) = set(tmp_path.iterdir()) - {of_doubled}
    assert run(tmp_path, halved) == (1.5, False)
    of_halved.unlink()
    assert run(tmp_path) == (6.0, False)


def fail(number):
    def write(*_):
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_code_that_cannot_be_written_stays_in_memory_with_one_warning(tmp_path, monkeypatch, warnings, number):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", fail(number))
    assert run(tmp_path / "cpu") == (6.0, True)
    assert run(tmp_path / "cpu", halved) == (1.5, True)
    assert run(tmp_path / "cpu") == (6.0, False)  # another chain of this process
    (warning,) = warnings()
    assert warning.startswith(f"{tmp_path}/cpu/doubled-")
    assert f"can't be written ({os.strerror(number)}); going on without the cache in {tmp_path}" in warning
    assert len(cache.take_unkept()) == 2
    assert run(tmp_path / "cpu") == (6.0, True)


def test_entry_of_several_files_is_written_whole_or_kept_in_memory_whole(tmp_path, monkeypatch):
    contents = {tmp_path / name: name.encode() for name in ("a.ptx", "a.cubin", "a.json")}
    real, written = Path.write_bytes, []

    def write_first(path, content):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_first)
    cache.keep(contents)
    assert list(tmp_path.iterdir()) == []
    assert {path: cache.read_kept(path) for path in contents} == contents
    monkeypatch.undo()
    cache.keep(contents)
    assert not cache.unkept()
    assert {path: cache.read_kept(path) for path in contents} == contents


def test_folder_with_content_in_place_of_a_file_is_left_alone(tmp_path, warnings):
    run(tmp_path)
    (file,) = tmp_path.iterdir()
    DAMAGES["folder"](file)
    (file / "mine").touch()
    assert run(tmp_path) == (6.0, True)
    assert [p.name for p in file.iterdir()] == ["mine"]
    (warning,) = warnings()
    assert str(file) in warning


def test_chosen_folder_that_is_a_file_costs_the_cache_alone(tmp_path, monkeypatch, warnings):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    assert cache.is_empty("cpu")
    assert run(cache.cache_directory("cpu")) == (6.0, True)
    assert len(build_detector("telescope").surfaces) == 9
    (warning,) = warnings()  # of both
    assert str(tmp_path / "file") in warning
    assert (tmp_path / "file").read_text() == "mine"


def test_navigation_that_cannot_be_written_is_made_once(tmp_path, monkeypatch, warnings):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", fail(errno.ENOSPC))
    first = build_detector("telescope")
    monkeypatch.setattr("traccc_py.geometry.detector.fill_bins", None)
    assert build_detector("telescope").fingerprint == first.fingerprint
    assert len(warnings()) == 1


def test_file_that_is_written_by_several_at_once_is_always_whole(tmp_path):
    path, contents = tmp_path / "file", [bytes([k]) * 100_000 for k in range(4)]
    write_files({path: contents[0]})
    seen, stop = [], threading.Event()

    def write(content):
        for _ in range(50):
            write_files({path: content})

    def read():
        while not stop.is_set():
            seen.append(path.read_bytes())

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert set(seen) <= set(contents)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# --- other processes, without the rights of root


@pytest.fixture
def public_folder():
    """Make a folder that everyone can read, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="traccc_py-test-"))
    folder.chmod(ANYONE)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o700)
    shutil.rmtree(folder)


def python(code, folder):
    root = Path(traccc_py.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "TRACCC_PY_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def outcome(process):
    """Return what a process printed, and its warnings."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out), [line for line in err.splitlines() if line]


TWICE = """
import json
from pathlib import Path
folder = Path(os.environ["TRACCC_PY_CACHE_DIR"])
print(json.dumps([test.run(folder), test.run(folder, test.halved)]))
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="rights are those of POSIX")
def test_complete_read_only_folder_is_used_silently(public_folder):
    run(public_folder), run(public_folder, halved)
    before = {path: path.stat().st_mtime_ns for path in public_folder.iterdir()}
    public_folder.chmod(0o555)
    assert outcome(python(WITHOUT_RIGHTS + TWICE, public_folder)) == ([[6.0, False], [1.5, False]], [])
    assert {path: path.stat().st_mtime_ns for path in public_folder.iterdir()} == before


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="rights are those of POSIX")
@pytest.mark.parametrize("damage", ["missing", "empty", "unreadable file", "unreadable folder"])
def test_read_only_folder_that_lacks_code_costs_one_warning(public_folder, damage):
    run(public_folder)
    (file,) = public_folder.iterdir()
    if damage == "unreadable file":
        file.chmod(0)
    elif damage != "unreadable folder":
        DAMAGES[damage](file)
    public_folder.chmod(0 if damage == "unreadable folder" else 0o555)
    results, (warning,) = outcome(python(WITHOUT_RIGHTS + TWICE, public_folder))
    assert results == [[6.0, True], [1.5, True]]
    assert warning.startswith(str(public_folder / "doubled-"))
    assert f"can't be written (Permission denied); going on without the cache in {public_folder}" in warning


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="rights are those of POSIX")
def test_unreadable_files_are_replaced_where_that_is_possible(public_folder):
    run(public_folder)
    (file,) = public_folder.iterdir()
    file.chmod(0)
    public_folder.chmod(0o777)
    assert outcome(python(WITHOUT_RIGHTS + TWICE, public_folder)) == ([[6.0, True], [1.5, True]], [])
    assert outcome(python(WITHOUT_RIGHTS + TWICE, public_folder)) == ([[6.0, False], [1.5, False]], [])


def test_two_processes_at_once_leave_a_complete_cache(public_folder):
    public_folder.chmod(0o777)
    both = [python(WITHOUT_RIGHTS + TWICE, public_folder) for _ in range(2)]
    for process in both:
        results, errors = outcome(process)
        assert [value for value, _ in results] == [6.0, 1.5]
        assert errors == []
    assert outcome(python(WITHOUT_RIGHTS + TWICE, public_folder)) == ([[6.0, False], [1.5, False]], [])
