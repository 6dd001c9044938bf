"""Files written whole or not at all, and hashes of sources."""

import gzip
from pathlib import Path

import pytest

from traccc_py import files
from traccc_py.files import content_digest, package_sources, source_digest, write_files


def test_write_files_leaves_nothing_behind_when_one_fails(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_bytes(b"old")
    second.mkdir()
    with pytest.raises(IsADirectoryError, match="there is a folder of this name"):
        write_files({first: b"new", second: b"new"})
    assert first.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "b.csv"]


def test_write_files_leaves_nothing_behind_when_the_disk_is_full(tmp_path, monkeypatch):
    written = []
    original = Path.write_bytes

    def write_bytes(self, data):
        written.append(self)
        if len(written) == 2:
            original(self, data[:1])
            raise OSError(28, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space left"):
        write_files({tmp_path / "a.csv": b"new", tmp_path / "b.csv": b"new"})
    assert list(tmp_path.iterdir()) == []


def test_write_files_compresses_reproducibly(tmp_path):
    path = tmp_path / "deep" / "a.csv.gz"
    write_files({path: b"content"})
    first = path.read_bytes()
    write_files({path: b"content"})
    assert path.read_bytes() == first
    assert gzip.decompress(first) == b"content"


def test_content_digest_knows_where_a_part_ends():
    assert content_digest("ab", "c") != content_digest("a", "bc")
    assert content_digest("ab") == content_digest(b"ab")
    assert len(content_digest()) == 16


def test_package_sources_are_the_named_files_and_those_of_the_named_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PACKAGE", tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("one.py", "other.py", "deep/two.py", "deep/er/three.py", "deep/left_out.py", "deep/text.md"):
        (tmp_path / name).touch()
    found = package_sources(("one.py", "deep", "gone.py"), ("deep/left_out.py",))
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["deep/er/three.py", "deep/two.py", "one.py"]


@pytest.mark.parametrize("change", ["content", "name", "facts"])
def test_source_digest_changes_with_contents_names_and_facts(tmp_path, monkeypatch, change):
    monkeypatch.setattr(files, "_PACKAGE", tmp_path)
    source, fact = tmp_path / "one.py", "numpy 2"
    source.write_text("x = 1")
    before = source_digest([source], fact)
    assert source_digest([source], fact) == before
    if change == "content":
        source.write_text("x = 2")
    elif change == "name":
        source = source.rename(tmp_path / "other.py")
    else:
        fact = "numpy 3"
    assert source_digest([source], fact) != before
