"""Files as data sets: what is understood of them, and what is refused by its place."""

import datetime
import hashlib
import io
import os
import pathlib
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bptt_jax import _processes, data
from bptt_jax.data import _read

TABLE = """\
who,at,x,y,kind
b,2,3,0.5,up
a,1,10,1.5,down
b,1,1,2.5,up
b,3,4,3.5,up
a,2,20,4.5,down
"""
NAMED = dict(target="kind", sequence="who", time="at")


def written(path: pathlib.Path, content) -> pathlib.Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def packed(kind: int) -> bytes:
    """A compressed archive, damaged where its array is."""
    file = io.BytesIO()
    noise = npy(np.random.default_rng(0).normal(size=(9, 4, 3)))
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr("x.npy", noise)
    whole = bytearray(file.getvalue())
    whole[60:160] = bytes(byte ^ 0x5A for byte in whole[60:160])
    return bytes(whole)


def parquet(**columns) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


# tables


def understood(found: data.Dataset) -> None:
    assert found.features == ("x", "y")
    assert found.sequences == ("b", "a")  # in the order of their first rows
    assert found.targets.tolist() == ["up", "down"]
    of_b, of_a = found.inputs
    assert of_b.tolist() == [[1, 2.5], [3, 0.5], [4, 3.5]]  # in the order of time
    assert of_a.tolist() == [[10, 1.5], [20, 4.5]]


def test_a_table_as_text(tmp_path):
    found = data.read(written(tmp_path / "a.csv", TABLE), **NAMED)
    understood(found)
    assert found.sha256 == hashlib.sha256(TABLE.encode()).hexdigest()


def test_features_that_are_named_are_all_that_is_looked_at(tmp_path):
    path = written(tmp_path / "a.csv", TABLE.replace("1.5", "").replace("up", ""))
    found = data.read(path, sequence="who", time="at", features=["x"])
    assert found.features == ("x",)
    assert found.targets is None
    np.testing.assert_array_equal(found.inputs[0][:, 0], [1, 3, 4])
    path = written(tmp_path / "b.csv", TABLE)
    found = data.read(path, **NAMED, features=("y", "x"))
    assert found.features == ("y", "x")
    np.testing.assert_array_equal(found.inputs[1], [[1.5, 10], [4.5, 20]])
    with pytest.raises(ValueError, match="expected the features x, z; it lacks z"):
        data.read(path, features=["x", "z"])
    with pytest.raises(ValueError, match="'kind' cannot be target and a feature, too"):
        data.read(path, **NAMED, features=["kind"])
    with pytest.raises(ValueError, match="features: 'x' is there twice"):
        data.read(path, features=["x", "x"])
    for wrong in "x", [], [1]:
        with pytest.raises(TypeError, match="features: expected names of columns"):
            data.read(path, features=wrong)
    arrays = written(tmp_path / "a.npz", npz(x=np.ones((2, 3, 1))))
    with pytest.raises(ValueError, match="features: arrays have"):
        data.read(arrays, features=["x"])


@pytest.mark.parametrize("mark", ";\t")
def test_other_separators_and_a_byte_order_mark(tmp_path, mark):
    text = "\ufeff" + TABLE.replace(",", mark).replace("\n", "\r\n")
    understood(data.read(written(tmp_path / "a.CSV", text), **NAMED))


def test_a_parquet_table(tmp_path):
    rows = [line.split(",") for line in TABLE.splitlines()[1:]]
    who, at, x, y, kind = map(list, zip(*rows, strict=True))
    day = [datetime.date(2024, 1, int(n)) for n in at]
    content = parquet(
        who=pa.array(who).dictionary_encode(), at=day, x=[*map(int, x)],
        y=[*map(float, y)], kind=pa.array(kind, pa.large_string()),
    )  # fmt: skip
    understood(data.read(written(tmp_path / "a.parquet", content), **NAMED))


def test_without_names_of_columns_the_rows_are_one_sequence(tmp_path):
    found = data.read(written(tmp_path / "a.csv", "x,on\n1,true\n2,false\n"))
    assert [a.tolist() for a in found.inputs] == [[[1, 1], [2, 0]]]
    assert (found.targets, found.sequences, found.features) == (None, (), ("x", "on"))


def test_times_that_are_text_begin_with_the_year(tmp_path):
    path = written(tmp_path / "a.csv", "m,x\n1949-02,2\n1948-12,0\n1949-01,1\n")
    assert data.read(path, time="m").inputs[0].tolist() == [[0], [1], [2]]


def test_targets_that_change_are_one_a_step(tmp_path):
    text = "who,x,label,number,on\na,1,7,0.5,true\na,2,8,1.5,false\nb,3,7,2.5,true\n"
    path = written(tmp_path / "a.csv", text)
    read = lambda name: data.read(path, sequence="who", target=name).targets
    assert [a.tolist() for a in read("label")] == [[7, 8], [7]]
    assert [a.tolist() for a in read("number")] == [[[0.5], [1.5]], [[2.5]]]
    assert [a.tolist() for a in read("on")] == [[[True], [False]], [[True]]]


def test_numbers_that_are_whole_for_long_are_numbers(tmp_path):
    """pyarrow would conclude what a column holds from the first MiB."""
    path = written(tmp_path / "a.csv", "x\n" + "1\n" * 600_000 + "2.5\n")
    (found,) = data.read(path).inputs
    assert (len(found), found[-1, 0]) == (600_001, 2.5)


def test_labels_may_be_words_that_mean_nothing_elsewhere(tmp_path):
    path = written(tmp_path / "a.csv", "w,x,y\na,1,NA\nb,2,nan\nc,3,ok\n")
    found = data.read(path, sequence="w", target="y")
    assert found.targets.tolist() == ["NA", "nan", "ok"]


# arrays


def test_arrays(tmp_path):
    xs, ys = np.arange(24.0).reshape(4, 3, 2), np.array(["a", "b", "a", "b"])
    found = data.read(written(tmp_path / "a.npz", npz(inputs=xs, targets=ys)))
    assert np.array_equal(found.inputs, xs)
    assert np.array_equal(found.targets, ys)
    assert found.features == ("0", "1")
    path = written(tmp_path / "b.npz", npz(X=xs, who=ys))
    assert data.read(path, target="who").targets.tolist() == ys.tolist()


def test_padded_arrays_are_cut_at_their_lengths(tmp_path):
    xs = np.arange(12.0).reshape(2, 3, 2)
    found = data.read(written(tmp_path / "a.npz", npz(x=xs, lengths=[1, 3])))
    assert [a.tolist() for a in found.inputs] == [xs[0, :1].tolist(), xs[1].tolist()]
    assert found.targets is None


def test_one_array(tmp_path):
    series = np.arange(6.0).reshape(3, 2)
    found = data.read(written(tmp_path / "a.npy", npy(series)))
    assert np.array_equal(found.inputs, series)
    assert (found.targets, found.features) == (None, ("0", "1"))


# archives

HEADER = "# of an archive\n@problemName Walks\n@timeStamps false\n@dimensions 2\n"
LABELS = "@equalLength false\n@classLabel true 1 2\n@data\n"


def test_an_archive(tmp_path):
    text = HEADER + LABELS + "1,2,3:4,5,6:2\n\n-1e3,2.5:0,0:1\n"
    found = data.read(written(tmp_path / "a.ts", text))
    first, second = found.inputs
    assert first.tolist() == [[1, 4], [2, 5], [3, 6]]  # time first
    assert second.tolist() == [[-1000, 0], [2.5, 0]]
    assert found.targets.tolist() == [2, 1]
    assert found.features == ("0", "1")


@pytest.mark.parametrize(
    ("line", "last", "targets"),
    [
        ("@classLabel true up down", ":up", ["up"]),
        ("@classLabel true", ":7", [7]),
        ("@classLabel true", ":07", ["07"]),  # 7 might be another
        ("@classLabel true", f":{10**20}", [str(10**20)]),
        ("@targetLabel true", ":0.25", [0.25]),
        ("@classLabel false", "", None),
        ("@univariate true", "", None),
    ],
)
def test_targets_of_an_archive(tmp_path, line, last, targets):
    path = written(tmp_path / "a.ts", f"{line}\n@data\n1,2{last}\n")
    found = data.read(path)
    assert found.inputs[0].tolist() == [[1], [2]]
    assert (found.targets if targets is None else found.targets.tolist()) == targets


# what is refused

REFUSED = {
    "another kind": ("a.txt", "x", {}, "that ends in .csv, .npy, .npz, .parquet, .ts, got"),
    "no suffix": ("a", "x", {}, "got none of these"),
    "empty": ("a.csv", "", {}, "the file is empty; expected a table as text (.csv)"),
    "empty array": ("a.npy", "", {}, "the file is empty; expected a NumPy array (.npy)"),
    # not what the name says
    "csv is parquet": ("a.csv", parquet(x=[1]), {}, "text (.csv), got a Parquet table"),
    "csv is bytes": ("a.csv", b"\0\1\2", {}, "text (.csv), got other bytes"),
    "parquet is csv": ("a.parquet", TABLE, {}, "expected a Parquet table (.parquet), got te"),
    "npz is npy": ("a.npz", npy([1]), {}, "expected NumPy arrays (.npz), got a NumPy array"),
    "npy is text": ("a.npy", "1 2 3", {}, "expected a NumPy array (.npy), got text"),
    "ts is npz": ("a.ts", npz(x=[1]), {}, "expected sequences of an archive (.ts), got Num"),
    "csv is latin": ("a.csv", b"x,y\n1,\xe9\n", {}, "column 'y': no text in UTF-8"),
    "ts is latin": ("a.ts", b"@data\n\xe9:1", {}, "no text in UTF-8"),
    # damaged
    "parquet is cut": ("a.parquet", parquet(x=[1])[:-9], {}, "the file is damaged: "),
    "npz is cut": ("a.npz", npz(x=[1])[:-9], {}, "the file is damaged: "),
    "npz of bzip2": ("a.npz", packed(zipfile.ZIP_BZIP2), {}, "x: the file is damaged: "),
    "npz of lzma": ("a.npz", packed(zipfile.ZIP_LZMA), {}, "x: the file is damaged: "),
    "npz of later": ("a.npz", npz(x=[1]).replace(b"PK\1\2-\3-", b"PK\1\2-\3\xff"), {},
                     "the file is damaged: zip file version"),  # fmt: skip
    "npy's words": ("a.npy", npy([1]).replace(b"(1,), }", b"(1,),  "), {}, "is damaged: "),
    "npy is cut": ("a.npy", npy([1])[:-1], {}, "8 bytes are announced, 7 are there"),
    "npy has no end": ("a.npy", npy([1])[:40], {}, "the file is damaged: "),
    # tables
    "no names": ("a.csv", "1,2\n3,4\n", {}, "first line with the columns' names, got num"),
    "no rows": ("a.csv", "x,y\n", {}, "no rows below the names x, y"),
    "blank": ("a.csv", "\n\n", {}, "no table that can be read: Empty CSV file"),
    "a name twice": ("a.csv", "x,x\n1,2\n", {}, "column 'x' is there 2 times"),
    "fewer": ("a.csv", "x,y\n1,2\n3\n", {}, "row 2: expected 2 columns, got 1"),
    "nan": ("a.csv", "x,y\n1,2\n3,nan\n", {}, "column 'y', row 2: the value is missing"),
    "a gap": ("a.csv", "x,y\n,2\n3,4\n", {}, "column 'x', row 1: the value is missing"),
    "inf": ("a.csv", "x\n1\n-inf\n", {}, "column 'x', row 2: -inf; expected a finite num"),
    "nan, parquet": ("a.parquet", parquet(x=[1, np.nan]), {}, "column 'x', row 2: nan; exp"),
    "null, parquet": ("a.parquet", parquet(x=[1, None]), {}, "row 2: the value is missing"),
    "text": ("a.csv", TABLE, dict(sequence="who"), "column 'kind', row 1: text, 'up'; inp"),
    "one word": ("a.csv", "x\n1\none\n", {}, "column 'x', row 2: text, 'one'; inputs are"),
    "dates": ("a.csv", "x\n2024-01-01\n", {}, "column 'x': date32[day]; inputs are numbers"),
    "lists": ("a.parquet", parquet(x=[[1]]), {}, "column 'x': list<"),
    "lists as names": ("a.parquet", parquet(x=[1], s=[[1]]), dict(sequence="s"),
                       "column 's': expected names, got list<"),  # fmt: skip
    "missing": ("a.csv", TABLE, dict(target="kin"), "target: there is no column 'kin'; "
                "columns are who, at, x, y, kind"),  # fmt: skip
    "both": ("a.csv", TABLE, dict(target="x", time="x"), "column 'x' cannot be target and"),
    "no inputs": ("a.csv", "x\n1\n", dict(target="x"), "no column is left for the inputs"),
    "a target's gap": ("a.csv", "x,y\n1,2\n3,\n", dict(target="y"), "column 'y', row 2: "),
    "a name's gap": ("a.parquet", parquet(x=[1, 2], w=["a", None]), dict(sequence="w"),
                     "column 'w', row 2: the value is missing"),  # fmt: skip
    "a time twice": ("a.csv", "t,x\n2,1\n1,2\n2,3\n", dict(time="t"),
                     "column 't': rows 1 and 3 are of the same time in the same sequ"),
    "a time's words": ("a.csv", "t,x\n1 May,1\n2 May,2\n", dict(time="t"),
                       "column 't', row 1: '1 May'; expected a number, or a time like"),
    "a time is true": ("a.csv", "t,x\ntrue,1\n", dict(time="t"), "expected times, got bool"),
    "infinite time": ("a.csv", "t,x\ninf,1\n", dict(time="t"), "column 't', row 1: inf; ex"),
    # arrays
    "objects": ("a.npz", npz(x=np.array([{}, 1], object)), {}, "x holds Python objects, "),
    "two": ("a.npz", npz(a=[1], b=[2]), {}, "expected one array of inputs, beside that of"),
    "none": ("a.npz", npz(a=[1]), dict(target="b"), "there is no array 'b'; arrays are a"),
    "columns": ("a.npz", npz(a=[1]), dict(sequence="b"), "sequence: arrays have sequences"),
    "names": ("a.npy", npy([1]), dict(target="b"), "target: a .npy file holds inputs alone"),
    "a number": ("a.npy", npy(3.0), {}, "expected sequences, got a single number"),
    "long lengths": ("a.npz", npz(x=np.ones((2, 3, 1)), lengths=[4, 1]), {},
                     "lengths: 4 of sequence 0; expected from 1 to 3"),  # fmt: skip
    "no steps": ("a.npz", npz(x=np.ones((2, 3, 1)), lengths=[1, 0]), {},
                 "lengths: 0 of sequence 1; expected from 1 to 3"),  # fmt: skip
    "few lengths": ("a.npz", npz(x=np.ones((2, 3, 1)), lengths=[1]), {},
                    "lengths: expected one whole number for each of 2 sequences, got int"),
    # archives
    "no data": ("a.ts", HEADER, {}, "no line @data; expected a header and sequences"),
    "no sequences": ("a.ts", HEADER + LABELS, {}, "no sequences below @data"),
    "question mark": ("a.ts", "@data\n1,2\n3,?\n", {}, "line 3, dimension 0, step 1: '?'"),
    "nan, archive": ("a.ts", "@data\n1:2\n3:NaN\n", {}, "line 3, dimension 1, step 0: 'Na"),
    "dimensions": ("a.ts", HEADER + LABELS + "1:1\n", {}, "line 8: expected 2 dimensions, g"),
    "uneven": ("a.ts", "@data\n1,2:3\n", {}, "line 2: dimensions of 1 and 2 steps"),
    "label": ("a.ts", HEADER + LABELS + "1:2:3\n", {}, "line 8: label '3'; labels of the"),
    "label alone": ("a.ts", LABELS + "1\n", {}, "line 4: expected dimensions and a label"),
    "no number": ("a.ts", "@targetlabel true\n@data\n1:x\n", {}, "line 3: 'x'; expected a n"),
    "own times": ("a.ts", "@timestamps true\n@data\n", {}, "with times of their own are not"),
    "named": ("a.ts", "@data\n1\n", dict(target="y"), "target: a .ts file has no columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, tmp_path):
    file, content, options, expected = REFUSED[name]
    path = written(tmp_path / file, content)
    with pytest.raises(ValueError) as refusal:
        data.read(path, **options)
    said = str(refusal.value)
    assert expected in said
    assert said.startswith(str(path))
    assert "\n" not in said


def test_more_than_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """By what is inside: zeros are compressed to a thousandth, and a column of them to less."""
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros((2, 2**16, 1)))
    column = pa.array(np.zeros(2**17)), pa.array(np.zeros(2**17))
    contents = {
        "a.npz": file.getvalue(),
        "a.npy": npy(np.zeros(2**17)),
        "a.csv": "x\n" + "0.12345678\n" * 100_000,
        "a.parquet": parquet(x=column[0], y=column[1]),
    }
    for name, content in contents.items():
        path = written(tmp_path / name, content)
        data.read(path)
    monkeypatch.setattr(_read, "memory", lambda: 900_000)
    for name in contents:
        with pytest.raises(MemoryError, match="GiB of data, and this machine has"):
            data.read(tmp_path / name)


def test_the_machine_has_memory():
    assert 2**28 < _processes.memory() < 2**63


def test_a_huge_array_that_is_not_there_takes_no_memory(tmp_path):
    head = io.BytesIO()
    shape = (10**12, 10**3)
    about = dict(descr="<f8", fortran_order=False, shape=shape)
    np.lib.format.write_array_header_1_0(head, about)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", head.getvalue())
    for name, content in {"a.npy": head.getvalue(), "a.npz": file.getvalue()}.items():
        with pytest.raises(ValueError, match="bytes are announced, 0 are there"):
            data.read(written(tmp_path / name, content))


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("made by a pickle",)


def test_no_pickle_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = np.array([Harmful()], object)
    for name, content in {"a.npy": npy(objects), "a.npz": npz(x=objects)}.items():
        with pytest.raises(
            ValueError, match="holds Python objects, which are not read"
        ):
            data.read(written(tmp_path / name, content))
    assert not (tmp_path / "made by a pickle").exists()


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        data.read(tmp_path / "nowhere.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(IsADirectoryError):
        data.read(tmp_path / "folder.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match="is a pipe or a device"):
        data.read(tmp_path / "pipe.csv")
