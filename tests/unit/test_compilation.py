"""What is told while kernels are compiled."""

import io
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from traccc_py.chain import TrackingChain
from traccc_py.cli import compilation_progress
from traccc_py.cli.compilation import compile_missing_kernels
from traccc_py.cli.compilation_progress import CompilationProgress
from traccc_py.device import cache
from traccc_py.device.cpu.compile import missing_loops
from traccc_py.device.cpu.kept_code import NotKeptError, without_compiling
from traccc_py.device.signatures import record_signatures

LONG, SHORT = ("fitting_fit_track", "finding_follow_seeds"), [f"short_{k}" for k in range(4)]  # 26, 22 and 4 * 0.5 s
SMALLEST = (
    "clusterization_mark_ranges",
    "seeding_spacepoint_formation_count_spacepoints",
    "tracking_selection_fill_list",
)


def progress(is_terminal=False, processes=2):
    return CompilationProgress([*LONG, *SHORT], processes, Console(file=io.StringIO(), force_terminal=is_terminal))


def test_kernels_whose_time_is_known_exist():
    found = record_signatures(lambda device: TrackingChain("telescope", device=device).initialize())
    assert set(compilation_progress._SECONDS) <= set(found)


@pytest.mark.parametrize(
    ("done", "seconds", "expected"),
    [
        ((), 0, "0 of 6, 0 s; at least 20 s more"),  # (26 + 22 + 2) / 2 s
        (SHORT, 10, "4 of 6, 10 s; at least 20 s more"),
        (SHORT, 260, "4 of 6, 260 s; at least 10 s more"),  # ten times as slow, and nearly done
        ([*SHORT, LONG[1]], 240, "5 of 6, 240 s; about 260 s more"),
        ([*SHORT, LONG[0]], 28, "5 of 6, 28 s; about 20 s more"),
        ([*SHORT, *LONG], 30, "6 of 6, 30 s; about 10 s more"),
    ],
)
def test_rest_is_estimated_from_what_is_done(done, seconds, expected):
    told = progress()
    for name in done:
        told.advance(name)
    assert told.line(seconds) == f"compiling kernels: {expected}"


def test_lines_come_while_nothing_is_finished(monkeypatch):
    monkeypatch.setattr(compilation_progress, "_FIRST_LINE", 0.05)
    with progress() as told:
        time.sleep(0.4)
    lines = told._console.file.getvalue().splitlines()
    assert lines[0] == "compiling kernels: 0 of 6, 0 s; at least 20 s more"
    assert len(lines) <= 0.4 / 0.05


def test_terminal_gets_one_line(monkeypatch):
    monkeypatch.setattr(compilation_progress, "_FIRST_LINE", 0.05)
    with progress(is_terminal=True) as told:
        told.advance(SHORT[0])
        time.sleep(0.2)
    text = told._console.file.getvalue()
    assert "1/6" in text
    assert "compiling kernels:" not in text


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def told(monkeypatch):
    """Return the names of kernels that each compilation was to tell of."""
    names = []

    def noted(*arguments):
        names.append(arguments[0])
        return CompilationProgress(*arguments)

    monkeypatch.setattr(compilation_progress, "CompilationProgress", noted)
    return names


def chain(monkeypatch, tmp_path, n):
    """Return what is needed of a chain that has `n` of the smallest kernels."""
    found = record_signatures(lambda device: TrackingChain("telescope", device=device).initialize())
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    some = {name: found[name] for name in SMALLEST[:n]}
    monkeypatch.setattr("traccc_py.device.signatures.record_signatures", lambda run: some)

    def initialize():
        if missing_loops(some):
            raise NotKeptError

    device = SimpleNamespace(name="cpu", threads=1)
    return SimpleNamespace(device=device, detector=None, config=None, initialize=initialize)


def test_compilation_is_told_of_only_when_it_is_due(monkeypatch, tmp_path, console, told):
    made = chain(monkeypatch, tmp_path, 2)
    compile_missing_kernels(made, console)
    text = console.file.getvalue()
    assert text == "compiling kernels, once for this version; about 60 s on two idle cores\n"
    assert [len(names) for names in told] == [2]
    compile_missing_kernels(made, console)
    assert console.file.getvalue() == text
    assert len(told) == 1


def test_kernels_that_an_interrupted_run_left_out_are_counted(monkeypatch, tmp_path, console, told):
    compile_missing_kernels(chain(monkeypatch, tmp_path, 1), console)
    compile_missing_kernels(chain(monkeypatch, tmp_path, 3), console)
    assert told == [list(SMALLEST[:1]), list(SMALLEST[1:])]
    assert console.file.getvalue().splitlines()[1:] == ["compiling 2 kernels that the cache lacks"]


def test_a_chain_that_the_cache_has_is_made_once(monkeypatch, console):
    TrackingChain("telescope", device="cpu").initialize()
    monkeypatch.setattr("traccc_py.device.signatures.record_signatures", lambda run: pytest.fail("nothing was lacking"))
    made = TrackingChain("telescope", device="cpu")
    compile_missing_kernels(made, console)
    assert console.file.getvalue() == ""
    monkeypatch.setattr("traccc_py.pipeline.schedule.Stages", lambda *given: pytest.fail("it was ready"))
    made.initialize()


def test_a_chain_that_was_not_loaded_whole_is_made_later(monkeypatch):
    chain = TrackingChain("telescope", device="cpu")
    monkeypatch.setattr(chain.device, "compiled", refusing)
    with pytest.raises(NotKeptError):
        chain.initialize()
    monkeypatch.undo()
    with without_compiling():
        chain.initialize()


def refusing(kernel, payload):
    raise NotKeptError(kernel.name)
