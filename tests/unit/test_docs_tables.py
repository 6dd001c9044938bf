"""Tables of the documentation are those that the code makes."""

import pytest

from tests.docs_tables import DOCS, blocks, renewed
from traccc_py import wire

PAGES = [page for page in sorted(DOCS.glob("*.md")) if "<!-- generated:" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_tables_are_current(page):
    text = page.read_text(encoding="utf-8")
    assert renewed(text) == text, "renew the tables: python -m tests.docs_tables"


def test_every_table_stands_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in blocks() if f"<!-- generated: {name} -->\n" not in text]
    assert missing == []


def test_names_on_the_page_of_the_protocol():
    page = (DOCS / "protocol.md").read_text(encoding="utf-8")
    for name in (wire.MODEL, wire.COMPACT_MODEL, wire.FINGERPRINT_PARAMETER, wire.OUTPUTS_PARAMETER):
        assert f"`{name}`" in page
