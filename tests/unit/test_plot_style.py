"""Figures as files: drawn once, with the layout that matplotlib itself would give them."""

import io

import pytest

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("mplhep")

from traccc_py.performance.plot_style import new_figure, plot_style, render  # noqa: E402

DPI = 50


def make_figure():
    figure, panels = new_figure(3)
    for k, panel in enumerate(panels):
        panel.plot([0, 1], [0, 10.0**k], label="a")
        panel.set(xlabel=r"$p_\mathrm{T}$ [GeV]", ylabel="Efficiency")
        panel.legend()
    figure.suptitle("All tracks", x=0.01, ha="left")
    return figure


def test_a_figure_is_drawn_once(monkeypatch):
    draws = []
    draw = matplotlib.figure.Figure.draw
    monkeypatch.setattr(matplotlib.figure.Figure, "draw", lambda self, r: (draws.append(r), draw(self, r)))
    with plot_style():
        assert len(render(make_figure(), "png", DPI)) > 5_000
    assert len(draws) == 1


def test_a_figure_looks_as_matplotlib_draws_it():
    with plot_style():
        found, expected = make_figure(), io.BytesIO()
        make_figure().savefig(expected, format="png", dpi=DPI)
        assert render(found, "png", DPI) == expected.getvalue()
