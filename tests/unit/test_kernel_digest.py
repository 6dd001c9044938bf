"""`studies/kernel_digest.py`: a kernel keeps its digest under other names and loses it with other code."""

import importlib
import itertools
import json
import re
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from studies import kernel_digest
from studies.kernel_digest import KernelCode, compare, count_instructions, describe, normalised
from traccc_py.device.cuda.compile import compile_kernel
from traccc_py.device.cuda.layout import payload_type
from traccc_py.device.kernel import registered_kernels

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

CAPABILITY = (9, 0)
STAGE = """
from typing import Any, NamedTuple
import numpy as np
from traccc_py.device.kernel import Scratch, device_function, kernel, scalar

SHIFT = scalar(3)

class Payload(NamedTuple):
    x: Any
    other: Any
    out_y: Any

@device_function
def shifted(a):
    return a + SHIFT

@kernel(scratch=(Scratch(4),))
def _shift(i, p, values):
    for k in range(4):
        values[k] = shifted(p.x[i, k])
    p.out_y[i] = values[p.other[i] & 3] if p.x[i, 0] > SHIFT else p.x[i, 1]

def _payload():
    return Payload(x=np.ones((5, 4), np.float32), other=np.zeros(5, np.int32), out_y=np.zeros(5, np.float32))
"""
RENAMED = {"shifted": "moved_far_away", "SHIFT": "OFFSET", "Payload": "_Arguments", "x": "abscissa", "_shift": "_move"}


NUMBER = itertools.count()  # modules are imported once in a process


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Return a function that compiles the kernel of a module's text; it returns the kernel and its code."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("traccc_py.device.kernel._REGISTRY", registered_kernels())  # theirs go with the test

    def build(text, file="digested"):
        name = f"{file}_{next(NUMBER)}"
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        payload = importlib.import_module(name)._payload()
        (kernel,) = (k for k in registered_kernels().values() if k.filename == str(path))
        return kernel, compile_kernel(kernel, payload_type(payload), CAPABILITY)

    return build


def in_words(text, words):
    return re.sub(r"\b(?:" + "|".join(words) + r")\b", lambda found: words[found.group()], text)


def test_names_of_all_things_and_lines_leave_the_digest_alone(built):
    first = describe(*built(STAGE))
    second = describe(*built("\n\n" + in_words(STAGE, RENAMED), "a_file_elsewhere"))
    assert (first.label, second.label) == ("shift", "move")
    assert replace(second, label=first.label, kernel=first.kernel) == first


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("scalar(3)", "scalar(4)"),
        ("a + SHIFT", "a - SHIFT"),
        ("    other: Any\n    out_y: Any\n", "    out_y: Any\n    other: Any\n"),
        ("scratch=(Scratch(4),)", "scratch=(Scratch(5),)"),
        ("scratch=(Scratch(4),)", "scratch=(Scratch(4),), fuses=False"),
    ],
    ids=["constant", "operation", "order of parameters", "scratch", "fusing"],
)
def test_other_code_has_another_digest(built, part, other):
    changed = STAGE.replace(part, other)
    assert changed != STAGE
    first, second = describe(*built(STAGE)), describe(*built(changed))
    assert first.label == second.label
    assert first.digest != second.digest


PTX = """//
.version {version}
.target sm_90
.address_size 64
	// .globl	{entry}
.common .global .align 8 .u64 _ZN08NumbaEnv{entry};
{shared}
.func  (.param .b32 func_retval0) {function}(
	.param .b32 {function}_param_0
)
;
.visible .entry {entry}(
	.param .u64 {entry}_param_0
)
{{
	.local .align 16 .b8 	__local_depot{depot}[32];
	.reg .pred 	%p<{many}>;
	.reg .f32 	%f<{many}>;

	ld.param.u64 	%rd1, [{entry}_param_0];
	mov.u32 	%r1, %tid.x;   // a comment
	@%p{p} bra 	$L__BB{block}_2;
	bra.uni 	$L__BB{block}_1;
$L__BB{block}_1:
	.pragma "nounroll";
	ld.global.v2.f32 {{%f{p}, %f3}}, [{table}];
	{{ // callseq 0, 0
	.param .b32 param0;
	call.uni (retval0),
	{function},
	(
	param0
	);
	}}
$L__BB{block}_2:
	ret;

}}
.func  (.param .b32 func_retval0) {function}(
	.param .b32 {function}_param_0
)
{{
	.reg .f32 	%f<{many}>;
	mov.f32 	%f{p}, 0f3F800000;
	ret;
}}
"""
NAMES = {
    "version": "9.0",
    "entry": "finding_follow",
    "function": "_ZN4turnB2v1E",
    "depot": 0,
    "many": 9,
    "p": 1,
    "block": 0,
}
TABLES = (".global .align 4 .b8 table_a[4] = {1, 2, 3, 4};", ".shared .align 4 .b8 unused[8];")


def test_ptx_is_told_apart_by_its_code_alone():
    one = normalised(PTX.format(**NAMES, shared="\n".join(TABLES), table="table_a"))
    renamed = {
        "version": "9.1",
        "entry": "fitting_move",
        "function": "_ZN1a",
        "depot": 3,
        "many": 12,
        "p": 7,
        "block": 5,
    }
    tables = "\n".join(reversed(TABLES)).replace("table_a", "t")
    assert normalised(PTX.format(**renamed, shared=tables, table="t")) == one
    assert normalised(PTX.format(**NAMES, shared=TABLES[0].replace("2", "7"), table="table_a")) != one
    assert "unused" not in one
    assert "{1, 2, 3, 4}" in one
    assert count_instructions(one) == 9


def kernel_code(label, digest, kernel="", registers=32):
    return KernelCode(label, kernel or f"stage_{label}", digest, 100, registers, 0)


def test_comparison_tells_what_became_of_each_kernel():
    before = [kernel_code("find", "a"), kernel_code("fit", "b"), kernel_code("drop", "c"), kernel_code("scan", "d")]
    after = [kernel_code("fit", "x", registers=40), kernel_code("find", "a", "moved_find"), kernel_code("make", "y")]
    report, is_equal = compare(before, [*after, kernel_code("sum", "d")])
    assert not is_equal
    assert report.splitlines()[:4] == ["equal 2", "changed 1", "new 1", "gone 1"]
    assert "before 100 instructions, 32 registers" in report
    assert "now    100 instructions, 40 registers" in report
    assert "new: make" in report
    assert "gone: drop" in report
    assert "equal: scan, now sum" in report
    assert compare(before, before)[1]
    assert not compare(before, [*before[:3], replace(before[3], registers=33)])[1]


def test_kernels_of_one_name_are_paired_by_digest_and_then_by_their_files():
    before = [kernel_code("keep", "a", "ambiguity_keep"), kernel_code("keep", "b", "seed_thinning_keep")]
    assert compare(before, [kernel_code("keep", "b", "x"), kernel_code("keep", "a", "y")])[1]
    report, _ = compare(
        before, [kernel_code("keep", "z", "thinning_keep"), kernel_code("keep", "a", "resolution_keep")]
    )
    assert report.splitlines()[:2] == ["equal 1", "changed 1"]
    assert "thinning_keep" in report


def test_command_writes_and_compares(tmp_path, built, monkeypatch):
    kernel, compiled = built(STAGE)
    in_place_of_the_chain = [(kernel, compiled, ""), (kernel, compiled, "cartesian")]
    monkeypatch.setattr(kernel_digest, "compile_chain", lambda capability: in_place_of_the_chain)
    app = typer.Typer()
    app.command()(kernel_digest.main)
    path = tmp_path / "kernels.json"
    done = CliRunner().invoke(app, ["--output", str(path), "--dump", str(tmp_path / "ptx")])
    assert done.exit_code == 0, done.output
    assert [k["label"] for k in json.loads(path.read_text())["kernels"]] == ["shift", "shift, cartesian map"]
    assert len(list((tmp_path / "ptx").iterdir())) == 2
    assert CliRunner().invoke(app, ["--compare", str(path)]).exit_code == 0
    path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))
    done = CliRunner().invoke(app, ["--compare", str(path)])
    assert done.exit_code == 1
    assert "changed 2" in done.output
