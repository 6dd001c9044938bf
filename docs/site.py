"""For mkdocs: pages that lie outside of docs, and links that hold in the repository and on the site."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
#: Pages of the repository by their place on the site.
OUTSIDE = {"readme.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)((?:#[^)\s]*)?)\)")
_REPEATED = re.compile(r"-(\d)$")  # headings of one name: GitHub numbers them so, mkdocs with _
_PICTURES = (".png", ".svg")


def on_files(files, config):
    """Add the pages and pictures from outside."""
    for place, name in OUTSIDE.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "studies" / "results").glob("*.png")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, **_):
    """Turn links that hold in the repository into those of the site; to what is not on it, into their text."""
    source = page.file.src_uri
    home = ROOT / OUTSIDE[source] if source in OUTSIDE else ROOT / "docs" / source
    depth = "../" * source.count("/")

    def turned(found):
        picture, text, target, anchor = found.groups()
        anchor = _REPEATED.sub(r"_\1", anchor)
        if not target:
            return f"[{text}]({anchor})"
        if "://" in target:
            return found[0]
        path = (home.parent / target).resolve()
        for place, name in OUTSIDE.items():
            if path == ROOT / name:
                return f"[{text}]({depth}{place}{anchor})"
        if path.is_relative_to(ROOT / "docs") and path.is_file() and path.suffix != ".py":
            return f"{picture}[{text}]({depth}{path.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        if path.suffix in _PICTURES and path.parent == ROOT / "studies" / "results":
            return f"{picture}[{text}]({depth}results/{path.name})"
        return text

    return _LINK.sub(turned, markdown)
