"""Architecture decision records: index and files agree, each record has its parts, what they name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "adr"
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))
HEADINGS = ["Context", "Decision", "Numbers", "Consequences"]
HEAD = re.compile(r"# ADR (\d+): (.+)\n\n- Date: (\d{4}-\d\d-\d\d)\n- Status: (.+)\n")
STATUS = re.compile(r"accepted|superseded by \[ADR (\d+)\]\((\d{4}-[\w-]+\.md)\)")

each_record = pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)


def head(record):
    """Return number, title, date and status of a record."""
    found = HEAD.match(record.read_text(encoding="utf-8"))
    assert found, f"{record.name}: does not begin with title, date and status"
    return int(found[1]), *found.group(2, 3, 4)


def test_records_are_numbered_without_gaps():
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))
    assert len(RECORDS) > 1


def test_index_and_records_agree():
    rows = [line for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    expected = []
    for record in RECORDS:
        number, title, date, status = head(record)
        expected.append(f"| {number} | [{title}]({record.name}) | {status} | {date} |")
    assert rows[1:] == expected


@each_record
def test_record_has_its_parts(record):
    text = record.read_text(encoding="utf-8")
    assert head(record)[0] == int(record.name[:4])
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    assert parts[1::2] == HEADINGS
    assert all(part.strip() for part in parts[2::2])


@each_record
def test_status_names_a_later_record(record):
    status = STATUS.fullmatch(head(record)[3])
    assert status
    if status[1]:
        successor = FOLDER / status[2]
        assert int(status[1]) == int(successor.name[:4]) == head(successor)[0] > head(record)[0]


@each_record
def test_tests_and_studies_of_a_record_exist(record):
    named = re.findall(r"(?:tests|studies)/[\w/]+\.py", record.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_record_that_is_referred_to_exists():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "traccc_py").rglob("*.py")]
    for page in pages:
        for number in re.findall(r"\bADR (\d+)\b", page.read_text(encoding="utf-8")):
            assert 1 <= int(number) <= len(RECORDS), f"{page.name}: ADR {number}"
