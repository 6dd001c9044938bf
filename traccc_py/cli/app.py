"""The command line and its commands. What takes time to import is imported by the command that needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from traccc_py.cli.chain_commands import compile_kernels, info, print_config, run, show
from traccc_py.cli.service_commands import client, perf_data, serve
from traccc_py.cli.simulation_commands import calibrate, performance, simulate

__all__ = ["app", "main"]

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


# In the order of the help.
app.command(epilog="traccc's names of cuts, such as --chi2-max, are accepted too: docs/from_traccc.md lists them.")(run)
app.command(name="detector")(show)
app.command(name="config")(print_config)
app.command()(simulate)
app.command()(calibrate)
app.command()(performance)
app.command(name="compile")(compile_kernels)
app.command()(serve)
app.command()(client)
app.command(name="perf-data")(perf_data)
app.command()(info)


def main() -> None:
    """Run the command line."""
    app()
