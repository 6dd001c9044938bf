"""`traccc-py performance --sample`, and the page of HTML that `--report` writes."""

import copy
import json
import re
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from traccc_py.cli.app import app
from traccc_py.data.manifest import read_manifest
from traccc_py.performance.report_page import performance_page

pytest.importorskip("matplotlib")
pytest.importorskip("mplhep")

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """What a page consists of; tags that are not closed in order are an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.images, self.figures, self.cells = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found["src"])
        if tag == "figure":
            self.figures.append(found["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    options = ("--particles", 60, "--pt", 1, 10, "--events", 2, "--seed", 4, "--noise-cells", 1e-7, 1e-4)
    result = call("simulate", "--output", folder, *options)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def evaluated(folder, tmp_path_factory):
    """Numbers of the sample; the page of one variable alone, which takes a third of the time."""
    from traccc_py.performance import plots

    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_VARIABLES", {"eta": plots._VARIABLES["eta"]})
        patch.setattr(plots, "_PLACES", {"perigee": "perigee"})
        result = call(
            "performance", "--sample", folder, "--min-measurements", 9, "--report", out / "page.html",
            "--json", out / "numbers.json",
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    return json.loads((out / "numbers.json").read_text()), (out / "page.html").read_text()


def test_samples_are_reconstructed_and_compared(evaluated, folder):
    numbers, _ = evaluated
    (label, found), facts = next(iter(numbers["results"].items())), numbers["sample"]
    assert label == "60 muons"
    assert found["n_events"] == 2
    assert found["selections"]["central"]["min_measurements"] == 9
    assert found["tracks"]["central"]["efficiency"] > 0.98
    # noise makes no tracks
    assert found["tracks"]["central"]["n_fakes"] == 0
    assert found["tracks"]["muons"] == found["tracks"]["central"]
    assert found["seeds"]["muons"]["n_particles"] == found["tracks"]["muons"]["n_particles"]
    finding, tracks, seeds = (found[k]["central"] for k in ("finding", "tracks", "seeds"))
    assert finding["n_particles"] == seeds["n_found"]
    assert finding["n_found"] <= tracks["n_found"]
    assert facts["samples"][label]["recipe"] == read_manifest(folder).recipe
    assert found["sizes"]["cells"] == sum(e["cells"] for e in read_manifest(folder).events) / 2


def test_the_page_is_whole_and_needs_no_other_file(evaluated):
    numbers, text = evaluated
    page = Page(text)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert len(page.images) == len(page.figures) > 10
    assert all(image.startswith("data:image/png;base64,iVBOR") for image in page.images)
    assert re.findall(r"https?://|src=\"(?!data:)", text) == []
    for figure in ("efficiency_eta", "seed_efficiency_eta", "finding_efficiency_eta", "pulls_perigee", "p_values"):
        assert figure in page.figures
    found = numbers["results"]["60 muons"]
    assert f"{100 * found['tracks']['central']['efficiency']:.2f} %" in page.cells
    assert f"{100 * found['finding']['central']['efficiency']:.2f} %" in page.cells
    assert numbers["versions"]["numba"] in page.cells
    assert numbers["sample"]["detector_facts"]["fingerprint"] in text


def test_samples_of_several_pileups_make_curves(evaluated, monkeypatch):
    from traccc_py.performance import plots

    numbers, _ = evaluated
    (found,) = numbers["results"].values()
    results = {f"<{mu}>": copy.deepcopy(found) | {"pileup": mu} for mu in (20.0, 200.0)}
    monkeypatch.setattr(plots, "_VARIABLES", {})
    monkeypatch.setattr(plots, "_OF_PARTICLES", {})
    monkeypatch.setattr(plots, "_PLACES", {})
    page = Page(performance_page(results, numbers["versions"], numbers["sample"]))
    assert page.figures[0] == "pileup"
    assert "<20.0>" in page.cells  # escaped in the source


def test_other_detectors_and_mixed_inputs_are_refused(folder, tmp_path):
    for arguments, words in (
        (["--sample", folder, "--detector", "toy"], "are of detector odd"),
        (["--sample", folder, "--truth", folder, "--tracks", folder], "give one of both"),
        (["--sample", tmp_path], "manifest.json"),
        (["--sample", folder, "--report", tmp_path], "is a folder; expected a file"),
    ):
        result = call("performance", *arguments)
        assert result.exit_code, arguments
        assert words in " ".join(result.stderr.split()), (arguments, result.stderr)
