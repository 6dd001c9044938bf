"""The command line and its commands. What takes time to import is imported by the command that needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from traccc_py.cli.conversion import convert
from traccc_py.cli.detector import detector
from traccc_py.cli.display import display
from traccc_py.cli.gnn import evaluate, export, train
from traccc_py.cli.performance import performance
from traccc_py.cli.reconstruction import compile_kernels, config, info, run
from traccc_py.cli.service import client, perf_data, serve
from traccc_py.cli.simulation import calibrate, simulate
from traccc_py.cli.study import study
from traccc_py.cli.throughput import throughput
from traccc_py.cli.tuning import tune

__all__ = ["EXAMPLES", "app", "main"]

app = typer.Typer(
    name="traccc-py",
    help="Charged-particle track reconstruction for silicon trackers, from cells to fitted tracks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # markup would swallow units such as [mm]
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        import traccc_py

        typer.echo(f"traccc-py {traccc_py.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


#: What each command does and an example with which its help ends, in the order of the help.
_COMMANDS = {
    "run": (run, "--sample --particle muon --output out"),
    "detector": (detector, "odd --draw odd.png"),
    "convert": (convert, "muons --output tables"),
    "display": (display, "--sample --output display.html"),
    "config": (config, "traccc --set finding.chi2_max=20"),
    "simulate": (simulate, "--output muons --events 10 --particles 100 --pt 1 10"),
    "calibrate": (calibrate, "toy --particles 10000 --output variances.json"),
    "tune": (tune, "toy --output tuned --trials 40"),
    "performance": (performance, "--events 2 --particles 100 --pt 1 10 --json numbers.json"),
    "throughput": (throughput, "--sample --threads 2 --processed-events 20"),
    "study": (study, "concurrency --size tiny"),
    "compile": (compile_kernels, "--device cuda --arch sm_80 --arch sm_90"),
    "serve": (serve, "--detector odd --instances 2 --threads 1"),
    "client": (client, "muons --url 127.0.0.1:8001 --output served"),
    "perf-data": (perf_data, "muons --output events.json"),
    "gnn train": (train, "--output my.npz --events 60 --minutes 20"),
    "gnn evaluate": (evaluate, "my.npz --pileup 30 --events 10"),
    "gnn export": (export, "odd --onnx networks"),
    "info": (info, ""),
}
_GROUPS = {"gnn": "Train, evaluate and export the graph neural network that finds tracks."}
EXAMPLES = {name: f"traccc-py {name} {example}".rstrip() for name, (_, example) in _COMMANDS.items()}

_apps = {"": app}
for _name, _help in _GROUPS.items():
    _apps[_name] = typer.Typer(help=_help, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(_apps[_name], name=_name)
for _name, (_function, _) in _COMMANDS.items():
    _group, _, _own = _name.rpartition(" ")
    _apps[_group].command(name=_own, epilog=f"Example:\n\n\b\n  {EXAMPLES[_name]}")(_function)


def main() -> None:
    """Run the command line."""
    app()
