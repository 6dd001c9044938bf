"""Reading and writing of CSV tables, good and bad."""

import gzip
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traccc_py.data import csv_table
from traccc_py.data.csv_table import Column, check_header, format_table, read_table
from traccc_py.errors import InputDataError

COLUMNS = [
    Column("id", "u8"),
    Column("n", "i8", minimum=0, maximum=100),
    Column("x", "f4"),
    Column("weight", "f4", default=1, minimum=0),
]


def table_file(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table_of(tmp_path, content, columns=COLUMNS, name="t.csv"):
    return read_table(table_file(tmp_path, content, name), columns)


@pytest.mark.parametrize(
    "text",
    [
        "id,n,x,weight\n7,3,1.5,2\n",
        "weight,x,n,id\n2,1.5,3,7\n",
        "id,n,x,weight\n7,3,1.5,2",
        "id,n,x,weight\r\n7,3,1.5,2\r\n",
        "id,n,x,weight\n7,3,1.5,2\n\n\n",
        "\ufeffid,n,x,weight\n7,3,1.5,2\n",
        " id, n ,x,weight\n 7, 3 , 15e-1, +2.\n",
        "id,note,n,x,weight\n7,hello,3,1.5,2\n",
    ],
)
def test_read_table_accepts_what_means_the_same(tmp_path, text):
    table = table_of(tmp_path, text)
    assert {k: v.tolist() for k, v in table.items()} == {"id": [7], "n": [3], "x": [1.5], "weight": [2.0]}
    assert [v.dtype for v in table.values()] == [np.uint64, np.int64, np.float32, np.float32]


def test_read_table_fills_optional_columns(tmp_path):
    assert table_of(tmp_path, "id,n,x\n1,2,3\n4,5,6\n")["weight"].tolist() == [1.0, 1.0]


def test_read_table_of_header_only_is_empty(tmp_path):
    table = table_of(tmp_path, "id,n,x,weight\n")
    assert [len(v) for v in table.values()] == [0, 0, 0, 0]
    assert [v.dtype for v in table.values()] == [np.uint64, np.int64, np.float32, np.float32]


def test_read_table_keeps_all_64_bits(tmp_path):
    ids = [2**64 - 1, 2**64 - 2, 2**53 + 1, 1152922329240578051]
    text = "id,n,x\n" + "".join(f"{i},1,0\n" for i in ids)
    assert table_of(tmp_path, text)["id"].tolist() == ids


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        ("1.0,2,3,4", "id", "1.0"),  # would lose bits if it went through a float
        ("1e3,2,3,4", "id", "1e3"),
        ("-1,2,3,4", "id", "-1"),
        ("18446744073709551616,2,3,4", "id", "18446744073709551616"),
        (",2,3,4", "id", ""),
        ('"1",2,3,4', "id", '"1"'),
        ("1,2.5,3,4", "n", "2.5"),
        ("1,True,3,4", "n", "True"),
        ("1,0x10,3,4", "n", "0x10"),
        ("1,-1,3,4", "n", "-1"),
        ("1,101,3,4", "n", "101"),
        ("1,99999999999999999999999,3,4", "n", "99999999999999999999999"),
        ("1,2,nan,4", "x", "nan"),
        ("1,2,,4", "x", ""),
        ("1,2,inf,4", "x", "inf"),
        ("1,2,1e39,4", "x", "1e39"),
        ("1,2,abc,4", "x", "abc"),
        ("1,2,True,4", "x", "True"),
        ("1,2,1_0,4", "x", "1_0"),
        ("1,2,3,-0.5", "weight", "-0.5"),
        ("1,2,3,NaN", "weight", "NaN"),
    ],
)
@pytest.mark.parametrize("line", [2, 4])
def test_read_table_names_the_bad_value(tmp_path, row, column, value, line):
    rows = ["1,2,3,4"] * 4
    rows[line - 2] = row
    with pytest.raises(InputDataError) as error:
        table_of(tmp_path, "\n".join(["id,n,x,weight", *rows, ""]))
    message = str(error.value)
    assert f"t.csv, line {line}: column {column} is {value!r}; expected " in message


@pytest.mark.parametrize(
    ("rows", "line", "found"),
    [
        ("1,2,3,4\n1,2,3\n", 3, "3 values"),
        ("1,2,3,4\n1", 3, "1 value"),
        ("1,2,3,4,5\n1,2,3\n", 2, "5 values"),
        ("1,2,1,5,4\n", 2, "5 values"),
        ("1,2,3,4\n\n1,2,3,4\n", 3, "a blank line"),
        ("1,2,3,4\r\n\r\n1,2,3,4\r\n", 3, "a blank line"),
    ],
)
def test_read_table_names_the_line_with_the_wrong_number_of_values(tmp_path, rows, line, found):
    with pytest.raises(InputDataError, match=rf"t\.csv, line {line}: {found}; expected 4 values"):
        table_of(tmp_path, "id,n,x,weight\n" + rows)


def test_read_table_names_missing_and_repeated_columns(tmp_path):
    with pytest.raises(InputDataError, match=r"line 1: no column id, x; the header has n, weight"):
        table_of(tmp_path, "n,weight\n1,2\n")
    with pytest.raises(InputDataError, match="column n appears more than once"):
        table_of(tmp_path, "id,n,x,n\n1,2,3,4\n")


def test_lines_that_end_with_a_carriage_return_alone_are_refused_at_once(tmp_path):
    text = "id,n,x,weight\r" + 50_000 * "1,2,3,4\r"
    with pytest.raises(InputDataError, match="line 1: lines end with a carriage return alone; expected line feeds"):
        table_of(tmp_path, text)
    with pytest.raises(InputDataError, match="column 1 appears more than once"):
        table_of(tmp_path, ",".join(100_000 * ["1"]) + "\n")


@pytest.mark.parametrize("content", ["", "\n", "\n\n"])
def test_read_table_rejects_empty_file(tmp_path, content):
    with pytest.raises(InputDataError, match=r"t\.csv: is empty; expected a header line"):
        table_of(tmp_path, content)


def test_read_table_rejects_missing_file_and_directory(tmp_path):
    with pytest.raises(InputDataError, match="there is no such file"):
        read_table(tmp_path / "none.csv", COLUMNS)
    with pytest.raises(InputDataError, match="can't be read"):
        read_table(tmp_path, COLUMNS)


@pytest.mark.parametrize("content", [b"id,n,x\n1,\xff\xfe,3\n", b"id,n,x\n1,\x00,3\n", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_read_table_rejects_binary_content(tmp_path, content):
    with pytest.raises(InputDataError, match=r"t\.csv(, line|: is not text)"):
        table_of(tmp_path, content)


def test_read_table_reads_gzip_and_names_a_truncated_one(tmp_path):
    compressed = gzip.compress(b"id,n,x,weight\n7,3,1.5,2\n" * 1)
    assert table_of(tmp_path, compressed, name="t.csv.gz")["id"].tolist() == [7]
    with pytest.raises(InputDataError, match="not a complete gzip file"):
        table_of(tmp_path, compressed[:-9], name="t.csv.gz")
    with pytest.raises(InputDataError, match="not a complete gzip file"):
        table_of(tmp_path, b"id,n,x,weight\n", name="t.csv.gz")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize(
    "content",
    [
        b"id,n,x",
        b"id,n,x\n",
        b"x,id,n,weight\r\n1,2,3,4\r\n",
        b"id,n\n",
        b"id,n,x,n\n",
        b"",
        b"\n",
        b"\n\nid,n,x\n",
        b"\xff\n",
    ],
)
def test_headers_are_judged_as_by_read_table(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    problems = []
    for judge in (read_table, check_header):
        try:
            judge(path, COLUMNS)
        except InputDataError as error:
            problems.append(str(error))
    assert len(set(problems)) <= 1
    assert len(problems) == (0 if content.count(b",") > 1 and b"n,x,n" not in content and content[:1] != b"\n" else 2)


def test_headers_alone_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"id,n,x\n1,\xff\n")
    check_header(path, COLUMNS)
    with pytest.raises(InputDataError, match="there is no such file"):
        check_header(tmp_path / "none.csv", COLUMNS)
    with pytest.raises(InputDataError, match="gzipped: name it"):
        check_header(table_file(tmp_path, gzip.compress(b"id,n,x\n")), COLUMNS)


def test_read_table_accepts_nan_where_allowed(tmp_path):
    columns = [Column("x", "f4", allow_nan=True)]
    assert np.isnan(table_of(tmp_path, "x\nnan\n", columns)["x"]).all()
    with pytest.raises(InputDataError, match="expected a finite number or nan"):
        table_of(tmp_path, "x\ninf\n", columns)


def test_read_table_reads_floats_beyond_64_bit_integers(tmp_path):
    assert table_of(tmp_path, "id,n,x\n1,2,99999999999999999999999\n")["x"][0] == np.float32(1e23)


def test_format_table_gives_back_the_same_bits(tmp_path):
    generator = np.random.default_rng(1)
    bits = generator.integers(0, 2**32, 5000, dtype=np.uint32)
    x = bits.view(np.float32)
    x = x[np.isfinite(x)]
    ids = generator.integers(0, 2**64, len(x), dtype=np.uint64)
    columns = {"id": ids, "n": np.arange(len(x)) % 100, "x": x}
    table = table_of(tmp_path, format_table(columns))
    np.testing.assert_array_equal(table["id"], ids)
    np.testing.assert_array_equal(table["x"].view(np.uint32), x.view(np.uint32))


def test_read_table_is_fast(tmp_path):
    """100,000 rows take 0.04 s on one core of a server; the limit leaves room for a busy machine."""
    n = 100_000
    columns = {"id": np.arange(n, dtype=np.uint64) + 2**60, "n": np.arange(n) % 100, "x": np.linspace(0, 1, n)}
    path = tmp_path / "t.csv"
    path.write_bytes(format_table(columns))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        assert len(read_table(path, COLUMNS)["id"]) == n
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_numbers_are_written_as_python_writes_them(n):
    random = np.random.default_rng(1)
    columns = {
        "x": random.normal(size=n).astype(np.float32),
        "zero": np.zeros(n, np.float32),
        "minus": np.full(n, -0.0, np.float32),
        "mixed": np.where(np.arange(n) % 2, 0.0, -0.0),
        "same": np.full(n, 0.1, np.float32),
        "id": np.arange(n, dtype=np.uint64) + 2**63,
        "nan": np.full(n, np.nan),
        "few": np.where(np.arange(n) % 3, 0.1, np.inf),
        "bool": np.arange(n) % 2 == 0,
        "none": np.zeros(n, np.int32),
    }
    line = ",".join("%d" if a.dtype.kind in "iub" else "%.9g" for a in columns.values())
    rows = zip(*(a.tolist() for a in columns.values()), strict=True)
    assert format_table(columns).decode() == "".join([",".join(columns) + "\n", *(line % row + "\n" for row in rows)])
    for name, values in columns.items():
        text = "".join((line.split(",")[list(columns).index(name)] % value) + "\n" for value in values.tolist())
        assert format_table({name: values}).decode() == f"{name}\n{text}"


def lines(values):
    return b"".join(b"%.9g\n" % value for value in values.tolist())


BITS = np.random.default_rng(3).integers(0, 2**32, 20_000, dtype=np.uint32)
N = len(BITS)
NUMBERS = {
    "any bits": BITS.view(np.float32),
    "ties": (np.random.default_rng(4).integers(-(2**24), 2**24, N) / 2.0 ** (BITS % 24)).astype(np.float32),
    "mm": np.random.default_rng(5).uniform(-1000, 1000, N).astype(np.float32),
    "float64": np.random.default_rng(6).normal(size=N) * 10.0 ** (BITS % 600 - 300.0),
    "decimals": np.arange(N) / 1000,
    "ten digits": np.random.default_rng(7).integers(0, 10**10, N) / 10.0,
    "powers of ten": np.array(
        [s * 10.0**k * f for k in range(-45, 39) for f in (1, 1 - 1e-9, 1 + 6e-9) for s in (1, -1)]
    ),
}


@pytest.mark.parametrize("name", list(NUMBERS))
def test_the_compiled_loop_writes_as_python_does(name):
    values = NUMBERS[name]
    assert csv_table._lines_of([values]) == lines(values)


@pytest.mark.parametrize("name", ["mm", "decimals", "ties", "ten digits"])
def test_usual_numbers_are_written_by_the_loop_alone(name):
    assert csv_table._compiled_lines([NUMBERS[name]]) == lines(NUMBERS[name])


def test_without_numba_the_same_is_written_and_read(tmp_path, monkeypatch):
    columns = {"id": np.arange(N, dtype=np.uint64) + 2**60, "n": np.arange(N) % 100, "x": NUMBERS["mm"]}
    written, read = format_table(columns), table_of(tmp_path, format_table(columns))
    monkeypatch.setattr(csv_table, "_has_loops", lambda: False)
    assert format_table(columns) == written
    again = table_of(tmp_path, written)
    assert all(np.array_equal(read[name], again[name]) for name in read)


def never(*_):
    pytest.fail("the loop should have read this")


PLAIN = [
    "id,n,x\n18446744073709551615,0,1e22\n0,100,-0.000123456789\n",
    "x,note,n,id\r\n1.5E-7,,3,7\r\n.5,hello world,3,7\r\n5.,a;b,03,7\r\n".replace("E", "e"),
]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_tables_are_read_by_the_loop_alone(tmp_path, monkeypatch, text):
    monkeypatch.setattr(csv_table, "_parse", never)
    columns = COLUMNS[:3]
    fast = table_of(tmp_path, text, columns)
    monkeypatch.undo()
    monkeypatch.setattr(csv_table, "_has_loops", lambda: False)
    slow = table_of(tmp_path, text, columns)
    for name, values in fast.items():
        assert values.tobytes() == slow[name].tobytes()


def test_negative_integers_are_read_by_the_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_table, "_parse", never)
    table = table_of(tmp_path, "a,b\n-1,3\n5,-4611686018427387904\n", [Column("a", "i4"), Column("b", "i8")])
    assert table["a"].tolist() == [-1, 5]
    assert table["b"].tolist() == [3, -(2**62)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(*[st.one_of(st.integers(-(2**65), 2**65).map(str), st.floats(width=32).map(repr),
    st.text("0123456789+-.e naif\r", max_size=6))] * 3), max_size=4))  # fmt: skip
def test_the_loop_reads_what_pandas_reads_and_leaves_the_rest(rows):
    text = "".join(f"{','.join(row)}\n" for row in rows).encode()
    raw, header = b"id,n,x\n" + text, ["id", "n", "x"]
    found = {column.name: [column] for column in COLUMNS[:3]}
    fast = csv_table._plain_values(raw, header, found)
    if fast is None:
        return
    slow = csv_table._checked_values("t.csv", raw, header, found)
    for name in header:
        np.testing.assert_array_max_ulp(fast[name][0].astype(float), slow[name][0].astype(float), 1)
