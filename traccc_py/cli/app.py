"""The command line and its commands. What takes time to import is imported by the command that needs it.

A program asks for one command: the modules and options of the others take a tenth of a second, and are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer

__all__ = ["EXAMPLES", "main"]  # and `app`, see `__getattr__`


def _show_version(is_asked: bool) -> None:
    if is_asked:
        import traccc_py

        typer.echo(f"traccc-py {traccc_py.__version__}")
        raise typer.Exit


def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


#: The function of each command and an example with which its help ends, in the order of the help.
_COMMANDS = {
    "run": ("reconstruction:run", "--sample --particle muon --output out"),
    "detector": ("detector:detector", "odd --draw odd.png"),
    "convert": ("conversion:convert", "muons --output tables"),
    "display": ("display:display", "--sample --output display.html"),
    "config": ("reconstruction:config", "traccc --set finding.chi2_max=20"),
    "simulate": ("simulation:simulate", "--output muons --events 10 --particles 100 --pt 1 10"),
    "calibrate": ("simulation:calibrate", "toy --particles 10000 --output variances.json"),
    "tune": ("tuning:tune", "toy --output tuned --trials 40"),
    "performance": ("performance:performance", "--events 2 --particles 100 --pt 1 10 --json numbers.json"),
    "throughput": ("throughput:throughput", "--sample --threads 2 --processed-events 20"),
    "study": ("study:study", "concurrency --size tiny"),
    "compile": ("reconstruction:compile_kernels", "--device cuda --arch sm_80 --arch sm_90"),
    "serve": ("service:serve", "--detector odd --instances 2 --threads 1"),
    "client": ("service:client", "muons --url 127.0.0.1:8001 --output served"),
    "perf-data": ("service:perf_data", "muons --output events.json"),
    "gnn train": ("gnn:train", "--output my.npz --events 60 --minutes 20"),
    "gnn evaluate": ("gnn:evaluate", "my.npz --pileup 30 --events 10"),
    "gnn export": ("gnn:export", "odd --onnx networks"),
    "info": ("reconstruction:info", ""),
}
_GROUPS = {"gnn": "Train, evaluate and export the graph neural network that finds tracks."}
EXAMPLES = {name: f"traccc-py {name} {example}".rstrip() for name, (_, example) in _COMMANDS.items()}


def _function(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"traccc_py.cli.{module}"), name)


def _make_app(names: Collection[str]) -> typer.Typer:
    """Return the command line with some of the commands."""
    made = typer.Typer(
        name="traccc-py",
        help="Charged-particle track reconstruction for silicon trackers, from cells to fitted tracks.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # markup would swallow units such as [mm]
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_main)
    groups = {"": made}
    for group in {name.rpartition(" ")[0] for name in names} - {""}:
        groups[group] = typer.Typer(help=_GROUPS[group], no_args_is_help=True, rich_markup_mode=None)
        made.add_typer(groups[group], name=group)
    for name in names:
        group, _, own = name.rpartition(" ")
        groups[group].command(name=own, epilog=f"Example:\n\n\b\n  {EXAMPLES[name]}")(_function(_COMMANDS[name][0]))
    return made


def _asked_for(words: list[str]) -> list[str]:
    """Return the commands that a command line may mean: all, if its first word is none."""
    first = words[0] if words else ""
    return [name for name in _COMMANDS if name.split(" ")[0] == first] or list(_COMMANDS)


@cache
def _whole() -> typer.Typer:
    return _make_app(_COMMANDS)


def __getattr__(name: str) -> typer.Typer:
    """Make `app`, the whole command line, when it is asked for."""
    if name == "app":
        return _whole()
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def main() -> None:
    """Run the command line."""
    _make_app(_asked_for(sys.argv[1:]))()
