"""Parquet files with a row an event: what is written is read, and bad files are refused with file, event and row."""

import numpy as np
import pytest

from tests.unit.test_data_track_files import make_result
from traccc_py.data.colliderml import majority_particles
from traccc_py.data.csv_table import Column
from traccc_py.data.event_output import ParquetOutput
from traccc_py.data.parquet_files import ParquetEvents, ParquetTables
from traccc_py.errors import InputDataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

RULES = [Column("id", "u8"), Column("x", "f4", allow_nan=True), Column("key", "U", is_text=True, default=0)]


def columns(event, n=3):
    return {
        "id": np.arange(n, dtype=np.uint64) + 2**63 + event,
        "x": np.full(n, event, np.float32),
        "key": np.full(n, 6, np.uint8),
    }


def write(path, **lists):
    pq.write_table(pa.table({name: pa.array(values) for name, values in lists.items()}), path)
    return path


def read_all(path):
    events = ParquetEvents(path)
    events.check_columns(RULES)
    return [events.read(row, RULES) for row in range(len(events.numbers))]


def test_events_are_read_as_they_were_written(tmp_path):
    tables = ParquetTables(tmp_path, 4)
    for event in (0, 1, 3, 4, 9):
        tables.add(event, {"hits": columns(event)})
    tables.close()
    names = sorted(path.name for path in (tmp_path / "hits").iterdir())
    assert names == [f"hits_{a:06d}-{a + 4:06d}.parquet" for a in (0, 4, 8)]
    events = ParquetEvents(tmp_path / "hits" / names[0])
    assert events.numbers.tolist() == [0, 1, 3]
    for row in (2, 0, 1, 1):  # in any order
        table = events.read(row, RULES)
        assert table["id"].tolist() == columns(int(events.numbers[row]))["id"].tolist()
        assert table["key"].tolist() == ["6", "6", "6"]
        assert table["x"].dtype == np.float32


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.uint64, np.float32, np.float64])
def test_numbers_of_any_type_are_written_as_they_are(tmp_path, dtype):
    every_second = (np.arange(44) % 3).astype(dtype)[::2]
    columns_of = {0: every_second, 1: every_second[:0], 2: every_second[5:]}
    tables = ParquetTables(tmp_path, 100)
    for event, values in columns_of.items():
        tables.add(event, {"hits": {"x": values}})
    tables.close()
    (path,) = (tmp_path / "hits").iterdir()
    table = pq.read_table(path)
    assert table.column("x").to_pylist() == [values.tolist() for values in columns_of.values()]
    assert table.schema.field("x").type.value_type == pa.from_numpy_dtype(dtype)


@pytest.mark.parametrize(("kind", "may_be_missing"), [("tracks", True), ("track_states", False)])
def test_events_of_a_group_keep_their_lists(tmp_path, kind, may_be_missing):
    """Lists of lists, of an event without tracks too; in Acts's schema numbers may be missing."""
    ids = {0: [[5, 7], []], 1: [], 2: [[-1], [2**40, 3, 3]]}
    tables = ParquetTables(tmp_path, 100)
    for event, lists in ids.items():
        offsets = np.cumsum([0, *map(len, lists)])
        inner = np.array([x for part in lists for x in part], np.int64)
        chi2 = np.arange(len(lists), dtype=np.float32)
        tables.add(event, {kind: {"ids": (offsets, inner), "chi2": chi2, "n": chi2.astype(np.int8)}})
    tables.close()
    file = pq.ParquetFile(tmp_path / kind / f"{kind}_000000-000100.parquet")
    assert file.read().column("ids").to_pylist() == list(ids.values())
    assert file.read().column("chi2").to_pylist() == [[0.0, 1.0], [], [0.0, 1.0]]
    assert file.schema_arrow.field("chi2").type.value_field.nullable is may_be_missing
    assert file.schema_arrow.field("ids").type.value_type.value_field.nullable is may_be_missing
    encodings = [set(file.metadata.row_group(0).column(k).encodings) for k in range(4)]
    assert ["DELTA_BINARY_PACKED" in found for found in encodings] == [False, True, False, False]


def test_groups_of_rows_are_found_without_reading_those_before(tmp_path, monkeypatch):
    from traccc_py.data import parquet_files

    monkeypatch.setattr(parquet_files, "_ROW_GROUP_BYTES", 100)
    tables = ParquetTables(tmp_path, 100)
    for event in range(10):
        tables.add(event, {"hits": columns(event)})
    tables.close()
    events = ParquetEvents(tmp_path / "hits" / "hits_000000-000100.parquet")
    assert events._file.num_row_groups > 2
    assert [events.read(row, RULES)["x"][0] for row in (8, 9, 2, 0)] == [8, 9, 2, 0]


def test_nothing_is_left_of_what_was_abandoned(tmp_path):
    tables = ParquetTables(tmp_path, 100)
    tables.add(0, {"hits": columns(0)})
    tables.abandon()
    assert list((tmp_path / "hits").iterdir()) == []


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"x": [[1.0]]}, "no column id; the file has x"),
        ({"id": [[1.5]], "x": [[1.0]]}, r"column id has the type list<.*double>; expected a list of integers"),
        ({"id": [[1]], "x": [1.0]}, "column x has the type double; expected a list of numbers for each event"),
        ({"id": [[1, 2]], "x": [[1.0]]}, "event 0: lists differ in length: {'id': 2, 'x': 1}"),
        ({"id": [[1, None]], "x": [[1.0, 2.0]]}, "event 0, row 1: column id is missing; expected an integer"),
        ({"id": [[1, -2]], "x": [[1.0, 2.0]]}, "event 0, row 1: column id is -2; expected an integer from 0"),
        ({"id": [[1]], "x": [[float("inf")]]}, "event 0, row 0: column x is inf; expected a finite number or nan"),
        ({"id": [[1], None], "x": [[1.0], [1.0]]}, "event 1: column id has no list"),
        ({"id": [[1], [1]], "x": [[1.0]] * 2, "event_id": [7, 7]}, "event 7 is there more than once"),
        ({"id": [[1]], "x": [[1.0]], "event_id": ["a"]}, "column event_id has the type string; expected integers"),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_refused(tmp_path, lists, message):
    path = write(tmp_path / "f.parquet", **lists)
    with pytest.raises(InputDataError, match=message) as caught:
        read_all(path)
    assert str(path) in str(caught.value)


def test_truncated_and_foreign_files_are_refused(tmp_path):
    x = np.random.default_rng(1).normal(size=10_000)
    path = write(tmp_path / "f.parquet", id=[np.arange(len(x))], x=[x])
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"geometry_id,channel0\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(InputDataError, match="not a complete Parquet file"):
            ParquetEvents(path)
    with pytest.raises(InputDataError, match="there is no such file"):
        ParquetEvents(tmp_path / "none.parquet")
    middle = len(whole) // 4
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    events = ParquetEvents(path)
    with pytest.raises(InputDataError, match="can't be read"):
        events.read(0, RULES)


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    tables = ParquetTables(tmp_path, 100)
    tables.add(0, {"hits": columns(0)})

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables._open["hits"]._writer, "write_table", no_space)
    with pytest.raises(OSError, match=r"No space left on device: .*hits_000000-000100.parquet"):
        tables.close()
    assert list((tmp_path / "hits").iterdir()) == []


def test_results_are_in_the_schema_of_acts(tmp_path):
    result = make_result(n_states_of_track=(3, 2))
    output = ParquetOutput(tmp_path, ("tracks", "track_states", "measurements"), 100)
    output.add(3, result, None)
    output.close()
    (row,) = pq.read_table(output.files_of(3)[0]).to_pylist()
    ids = result.measurements.measurement_id[result.track_states.measurement_index]
    assert row["event_id"] == 3
    assert row["measurement_ids"] == [ids[:3].tolist(), ids[3:].tolist()]
    np.testing.assert_array_equal(np.float32(row["d0"]), result.tracks.perigee[:, 0])
    np.testing.assert_array_equal(np.float32(row["first_loc1"]), result.tracks.params[:, 1])
    assert row["track_id"] == [0, 1]
    types = {
        field.name: str(field.type.value_type)
        for field in pq.read_schema(output.files_of(3)[0])
        if field.name != "event_id"
    }
    assert (types["d0"], types["majority_particle_id"], types["track_id"]) == ("float", "uint64", "uint16")
    (states,) = pq.read_table(output.files_of(3)[1]).to_pylist()
    np.testing.assert_array_equal(np.float32(states["z"]), result.track_states.global_position[:, 2])


def test_majority_is_of_most_measurements_then_the_smallest_id():
    result = make_result(n_states_of_track=(3, 2))
    result.measurements.measurement_id[:] = np.arange(6)
    result.track_states.measurement_index[:] = [0, 1, 2, 3, 4]
    particle = np.array([7, 9, 9, 5, 4, 1], np.uint64)
    assert majority_particles(result, particle).tolist() == [9, 4]
