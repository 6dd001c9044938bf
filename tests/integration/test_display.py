"""`traccc-py display`, and its page in a browser where there is one (playwright and Chromium)."""

import json
import os
import shutil

import pytest
from typer.testing import CliRunner

from traccc_py.cli.app import app

pytest.importorskip("plotly")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu"]  # drawing by software


def call(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("display")
    call("simulate", "--output", folder / "muons", "--events", 2, "--particles", 10, "--pt", 1, 10)
    call("display", folder / "muons", "--event", 1, "-o", folder / "page.html", "--phoenix", folder / "phoenix.json")
    return folder


def test_the_page_has_the_truth_of_its_event(folder):
    page = (folder / "page.html").read_text()
    assert '"has_truth":true' in page
    assert '"is_matched":true' in page
    event = json.loads((folder / "phoenix.json").read_text())["event 1"]
    assert len(event["Tracks"]["Tracks"]) > 5
    assert set(event["Hits"]) == {"Spacepoints", "True hits"}


def test_what_can_not_be_drawn_is_refused(folder):
    assert "has no event 7; its numbers are 0 to 1" in call("display", folder / "muons", "--event", 7, code=2)
    assert "name one event file or folder, or use --sample" in call("display", code=2)
    assert "choose one" in call("display", folder / "muons", "--sample", code=2)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("TRACCC_PY_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium; TRACCC_PY_BROWSER names one")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield found
        found.close()


@pytest.mark.slow
def test_the_page_works_in_a_browser(folder, browser):
    problems = []
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto(f"file://{folder / 'page.html'}")
    page.wait_for_selector("body[data-ready=yes]", timeout=120_000)
    n_tracks = page.evaluate("scene.counts.n_tracks")
    assert page.inner_text("#shown") == f"{n_tracks} of {n_tracks} tracks shown"
    page.evaluate("choose(0)")
    assert "Track" in page.inner_text("#panel h2")
    assert page.locator("#panel table").last.locator("tr").count() == 1 + page.evaluate("scene.tracks[0].states.length")
    page.evaluate("form.pt.value = Math.log10(5); draw()")
    hard = page.evaluate("scene.tracks.filter(t => t.pt >= 5).length")
    assert page.inner_text("#shown") == f"{hard} of {n_tracks} tracks shown"
    for layer in ("seeds", "particles", "detector", "spacepoints"):
        page.click(f"#layer-{layer}")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert problems == []
