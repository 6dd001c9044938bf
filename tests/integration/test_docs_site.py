"""The documentation builds as a site, without a warning; where what that needs is installed (extra docs)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_site_is_built_without_warnings(tmp_path):
    for module in ("material", "mkdocstrings_handlers.python", "mkdocs_jupyter"):
        pytest.importorskip(module)
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    without_running = tmp_path / "mkdocs.yml"  # notebooks have a test of their own
    text = text.replace("execute: true", "execute: false").replace("docs_dir: docs", f"docs_dir: {ROOT / 'docs'}")
    without_running.write_text(text.replace("[docs/site.py]", f"[{ROOT / 'docs' / 'site.py'}]"), encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(without_running), "-d", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING -" not in done.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert "pt_error" in api
    assert (tmp_path / "site" / "readme" / "index.html").exists()
