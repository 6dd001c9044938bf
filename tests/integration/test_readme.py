"""README, CONTRIBUTING and docs say what is so: examples run, commands, options, settings and files exist."""

import contextlib
import dataclasses
import importlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from traccc_py.cli.app import app
from traccc_py.config import ChainConfig
from traccc_py.settings import AUTO

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "studies" / "README.md"])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = {"", "sh"}
NEEDS_A_SERVER = {"serve", "client"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


def blocks(page):
    """Return (language, text) of the fenced blocks of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def prose(page):
    """Return a page without its fenced blocks."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def commands(page):
    """Return the words of each command in shell blocks and in inline code."""
    lines = [line for language, text in blocks(page) if language in SHELL for line in text.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", prose(page))
    for line in lines:
        with contextlib.suppress(ValueError):  # a quote that is not closed: no command
            words = shlex.split(line, comments=True)
            if words:
                words[0] = words[0].removeprefix(".venv/bin/")
                yield words


@pytest.fixture(scope="module")
def readme():
    return blocks(ROOT / "README.md")


def test_example_of_the_readme_prints_what_it_says(readme):
    kinds = [language for language, _ in readme]
    first = kinds.index("python")
    assert kinds.count("python") == 1
    assert kinds[first + 1] == "text"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(readme[first][1], "README.md", "exec"), {"__name__": "readme"})
    assert printed.getvalue() == readme[first + 1][1]


def test_commands_of_the_readme_work_in_their_order(tmp_path, monkeypatch):
    """Those for the command line, where nothing but the clone is: each finds what it needs or an earlier one made."""
    monkeypatch.chdir(tmp_path)
    done = []
    for language, text in blocks(ROOT / "README.md"):
        for line in text.splitlines() if language == "sh" else ():
            words = shlex.split(line, comments=True)
            if words and words[0] == "traccc-py" and words[1] not in NEEDS_A_SERVER:
                result = CliRunner().invoke(app, words[1:])
                assert result.exit_code == 0, (line, result.output)
                done.append(words[1])
            elif words[:2] == ["traccc-py", "client"]:
                assert Path(words[2]).is_dir(), line
    assert done == ["simulate", "run", "performance", "display", "detector", "config"]


def test_picture_of_the_readme_shows_what_is_reconstructed_now():
    image = pytest.importorskip("PIL.Image").open(ROOT / "docs" / "pictures" / "event.png")
    from studies.readme_pictures import event_facts
    from traccc_py import TrackingChain, read_cells
    from traccc_py.data.sample import sample_event_path

    chain = TrackingChain("odd", device="cpu")
    now = event_facts(chain, chain.run(read_cells(sample_event_path())))
    assert image.text["facts"] == now, "renew the picture: python -m studies.readme_pictures"


def test_performance_in_the_readme_is_that_of_now():
    """Of a first event: muons found, to one, and seeds, to 5 %; the picture shows more events."""
    image = pytest.importorskip("PIL.Image").open(ROOT / "docs" / "pictures" / "performance.png")
    from studies.readme_pictures import muon_chain, muon_efficiency

    facts, chain = json.loads(image.text["facts"]), muon_chain()
    renew = "renew the picture: python -m studies.readme_pictures"
    assert facts["detector"] == chain.detector.fingerprint, renew
    assert {"20", "200"} <= set(facts["times"])
    for pt, shown in facts["first"].items():
        now = muon_efficiency(chain, float(pt), 1)
        assert abs(sum(now["found"]) - sum(shown["found"])) <= 1, renew
        assert now["seeds"] == pytest.approx(shown["seeds"], rel=0.05), renew


def test_example_of_the_readme_is_short(readme):
    (example,) = [text for language, text in readme if language == "python"]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10


def test_times_in_the_readme_are_those_of_the_file_it_names():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (name,) = set(re.findall(r"studies/results/[\w-]+\.json", text))
    cases = json.loads((ROOT / name).read_text(encoding="utf-8"))["cases"]
    assert {f"{case['total_milliseconds']:.0f} ms" for case in cases} == set(re.findall(r"\d+ ms", text))


@each_page
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for words in commands(page) if words[0] == "make" for word in words[1:] if "=" not in word}
    assert named - {"..."} <= targets


@each_page
def test_commands_and_options_exist(page):
    group = typer.main.get_command(app)
    for words in commands(page):
        if words[0] != "traccc-py" or len(words) == 1 or words[1] in {"--help", "--version", "COMMAND"}:
            continue
        assert words[1] in group.commands, f"traccc-py {words[1]}: no such command"
        command = group.commands[words[1]]
        if isinstance(command, typer.core.TyperGroup):
            assert words[2] in command.commands, f"traccc-py {words[1]} {words[2]}: no such command"
            command = command.commands[words[2]]
        known = {name for option in command.params for name in option.opts} | {"--help"}
        used = {word for word in words[2:] if re.fullmatch(r"--?[a-z][a-z-]*", word)}
        assert used <= known, f"traccc-py {words[1]} has no option {used - known}"


@each_page
def test_links_and_files_exist(page):
    text = prose(page)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    assert missing == []
    named = re.findall(r"`((?:traccc_py|tests|docs|studies)/[\w./-]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def one_command(function):
    """Return the command line of a study of one command."""
    found = typer.Typer(add_completion=False)
    found.command()(function)
    return found


@each_page
def test_studies_and_their_options_exist(page):
    for words in commands(page):
        if words[0] not in {"python", "python3"} or words[1:2] != ["-m"] or not words[2].startswith("studies."):
            continue
        if words[2] == "studies.NAME":
            continue
        study = importlib.import_module(words[2])
        known = typer.main.get_command(study.app if hasattr(study, "app") else one_command(study.main))
        if hasattr(known, "commands") and len(words) > 3:
            known = known.commands[words[3]]
        used = {word for word in words[3:] if word.startswith("--")}
        assert used <= {name for option in known.params for name in option.opts}, " ".join(words)


@each_page
def test_settings_exist(page):
    sections = {f.name: getattr(ChainConfig(), f.name) for f in dataclasses.fields(ChainConfig)}
    for section, key in re.findall(r"`(\w+)\.(\w+)`", prose(page)):
        if section in sections:
            assert hasattr(sections[section], key), f"{page.name}: there is no setting {section}.{key}"


def test_defaults_in_tables_are_those_of_the_configuration():
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    assert len(rows) > 5
    config = ChainConfig().to_dict()
    told = {f"{s}.{k}": value if value == AUTO else float(value) for s, k, value in rows}
    assert told == {f"{s}.{k}": config[s][k] for s, k, _ in rows}
