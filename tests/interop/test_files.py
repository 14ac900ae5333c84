"""Safetensors files, and what only looks like one."""

import io
import json
import os
import pathlib
import pickle
import struct
import tracemalloc
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from bptt_jax import _files
from bptt_jax.interop import files, torch

F32 = {"a": ("F32", [2], [0, 8]), "b": ("F32", [3], [8, 20])}


def entry(dtype, shape, offsets):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def made(header, data=b"\0" * 20, length=None) -> bytes:
    """A file from a header (entries, or text as it is) and the bytes after it."""
    if isinstance(header, dict):
        header = json.dumps({n: entry(*e) for n, e in header.items()}).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def archive(name: str) -> bytes:
    """A zip archive with one file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr(name, "{}")
    return content.getvalue()


HUGE = (1 << 64) - 1
NESTED = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
A = b'"a":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}'
HOSTILE = {
    "empty": (b"", "no safetensors file, or a truncated one"),
    "eight bytes": (struct.pack("<Q", 0), "no safetensors file, or a truncated one"),
    "no header": (made(b""), "no safetensors file"),
    "header beyond the file": (made(b"{}", length=1000), "truncated"),
    "huge header": (made(b"{}", length=HUGE), "truncated"),
    "truncated header": (made(F32)[:40], "truncated"),
    "text": (b"These are not weights at all.", "no safetensors file"),
    "not UTF-8": (made(b'{"\xff\xfe": 1}'), "not UTF-8"),
    "not JSON": (made(b"{a}"), "not JSON"),
    "too deep": (made(NESTED), "header"),
    "digits": (made(b'{"a":' + b"9" * 10_000 + b"}"), "file.safetensors: "),
    "the same key twice": (made(b"{" + A + b"," + A + b"}"), "a: twice in the header"),
    "entry is no dict": (made(b'{"a": 3}'), "a: expected a dtype, a shape and"),
    "entry lacks dtype": (made(b'{"a": {"shape": []}}'), "a: expected a dtype"),
    "metadata are no texts": (made(b'{"__metadata__": {"a": 3}}'), "__metadata__"),
    "unknown dtype": (made({"a": ("F31", [5], [0, 20])}), "a: expected a dtype of F64"),
    "dtype is a list": (made({"a": ([], [5], [0, 20])}), "a: expected a dtype of F64"),
    "negative size": (made({"a": ("F32", [-5], [0, 20])}), "a: expected a shape"),
    "size is no number": (made({"a": ("F32", ["5"], [0, 20])}), "a: expected a shape"),
    "size is true": (made({"a": ("F32", [True], [0, 4])}), "a: expected a shape"),
    "huge size": (made({"a": ("F32", [1 << 60], [0, 20])}), "a: expected a shape"),
    "huge shape": (
        made({"a": ("F32", [1 << 40] * 9, [0, 20])}),
        "does not take the 20",
    ),
    "shape and bytes": (made({"a": ("F32", [4], [0, 20])}), "a: F32[4] does not take"),
    "three offsets": (made({"a": ("F32", [5], [0, 4, 20])}), "a: expected two"),
    "offsets beyond": (
        made({"a": ("F32", [6], [0, 24])}),
        "a: data_offsets 0 to 24 lie",
    ),
    "offsets backward": (made({"a": ("F32", [0], [20, 0])}), "a: data_offsets 20 to 0"),
    "negative offset": (made({"a": ("F32", [5], [-20, 0])}), "a: expected two"),
    "overlap": (
        made({"a": ("F32", [3], [0, 12]), "b": ("F32", [3], [8, 20])}),
        "b: overlaps a",
    ),
    "gap": (
        made({"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [12, 20])}),
        "b: a gap between it and a",
    ),
    "gap at first": (made({"a": ("F32", [4], [4, 20])}), "a: a gap before it"),
    "more bytes": (made(F32, b"\0" * 21), "1 bytes that belong to no array"),
    "fewer bytes": (made(F32, b"\0" * 19), "b: data_offsets 8 to 20 lie outside"),
    "no arrays": (made(b"{}"), "20 bytes that belong to no array"),
    "long name": (made({"a" * 600: ("F32", [5], [0, 20])}), "no name of an array"),
    "escape": (made({"\x1b[2J": ("F32", [5], [0, 20])}), "no name of an array"),
    "pickle": (pickle.dumps({"a": [1]}), "a pickle; expected safetensors"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "an HDF5 file; expected safetensors"),
    "keras": (
        archive("metadata.json"),
        "a model of Keras (.keras, a zip archive); exp",
    ),
    "npz": (archive("lstm/kernel.npy"), "arrays of NumPy (.npz, a zip archive); exp"),
    "torch": (archive("m/data.pkl"), "a zip archive, as torch.save makes; expected"),
    "cut archive": (
        archive("metadata.json")[:20],
        "a zip archive, as torch.save makes",
    ),
    "npy": (b"\x93NUMPY" + b"\0" * 50, "an array of NumPy (.npy); expected"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name, tmp_path):
    content, expected = HOSTILE[name]
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        files.read(path)
    said = str(caught.value)
    assert expected in said
    assert str(path) in said
    assert "\n" not in said
    assert len(said) < 500


def test_a_header_as_long_as_a_pickle_begins_is_a_header(tmp_path):
    """Its length is written first: 128 and a multiple of 256 is also a pickle's byte."""
    lengths = set()
    for n in range(64, 80):
        path = tmp_path / f"{n}.safetensors"
        files.write(path, {"a" * n: np.ones(2, np.float32)})
        lengths.add(path.read_bytes()[0])
        same(files.read(path), {"a" * n: np.ones(2, np.float32)})
    assert 0x80 in lengths


def test_an_array_of_another_dtype_is_in_the_way_of_itself_alone(tmp_path):
    path = tmp_path / "file.safetensors"
    named = {
        f"rnn.weight_{end}_l0": np.ones((3, 3), np.float32) for end in ("ih", "hh")
    }
    both = {n: ("F32", [3, 3], [36 * k, 36 * k + 36]) for k, n in enumerate(named)}
    both |= {"head.weight": ("F8_E4M3", [5], [72, 77])}
    path.write_bytes(made(both, b"\0\0\x80\x3f" * 18 + b"\0" * 5))
    net = torch.load_state_dict(path, prefix="rnn.")
    np.testing.assert_array_equal(net.params[0][0]["w_x"], np.ones((3, 3)))
    expected = "head.weight: expected a dtype of F64, .* got 'F8_E4M3'"
    for read in (files.read, lambda path: torch.load_state_dict(path, prefix="head.")):
        with pytest.raises(ValueError, match=expected):
            read(path)


def peak(path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            files.read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lies_cost_no_memory(tmp_path):
    """A sparse file is as large as it says; a header that big is no header of names."""
    lies = {
        "header": struct.pack("<Q", 1 << 33) + b"{",
        "zeros": struct.pack("<Q", 1 << 33),
        "length": struct.pack("<Q", HUGE) + b"{",
        "array": made({"a": ("F32", [1 << 31], [0, 1 << 33])}, b""),
        "arrays": made(
            {str(i): ("F32", [1 << 31], [0, 1 << 33]) for i in range(9)}, b""
        ),
    }
    for name, start in lies.items():
        path = tmp_path / name
        path.write_bytes(start)
        os.truncate(path, 1 << 34)
        assert peak(path) < 1_000_000, name


def test_a_wrong_shape_is_found_before_it_is_read(tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(made({"weight_ih_l0": ("F32", [1 << 31], [0, 1 << 33])}, b""))
    os.truncate(path, len(path.read_bytes()) + (1 << 33))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"weight_hh_l0 is missing"):
        torch.load_state_dict(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_pickle_in_an_archive_is_refused(tmp_path):
    """As `torch.save` writes it."""
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({}))
    with pytest.raises(ValueError, match=r"safetensors\.torch\.save_file\(module\.st"):
        files.read(path)


ARRAYS = {
    "none": np.zeros((0, 3), np.float32),
    "number": np.array(-0.0, np.float64),
    "half": np.arange(6, dtype=np.float16).reshape(2, 3).T,
    "bfloat16": np.asarray(jnp.arange(5, dtype=jnp.bfloat16)),
    "single": np.array([np.nan, np.inf, 1e-45], np.float32),
    "integers": np.arange(-3, 3),
    "flags": np.array([True, False]),
    "ünï": np.ones(1, np.uint8),
}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)
        assert a[name].tobytes() == b[name].tobytes()


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "file.safetensors"
    files.write(path, ARRAYS, {"made": "here"})
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    same(files.read(path), ARRAYS)
    assert files.stored(path)[1] == {"made": "here"}


def test_it_is_the_format_of_the_safetensors_package(tmp_path):
    known = {name: a for name, a in ARRAYS.items() if name != "bfloat16"}
    known = {name: np.array(a, order="C") for name, a in known.items()}
    save_file(known, tmp_path / "theirs.safetensors")
    same(files.read(tmp_path / "theirs.safetensors"), known)
    files.write(tmp_path / "ours.safetensors", known)
    same(load_file(tmp_path / "ours.safetensors"), known)


COMPLEX = {
    "w": np.array([[1 + 2j, -0.0], [complex(np.nan, -0.0), complex(-np.inf, 5e-324)]]),
    "none": np.zeros((0, 2), complex),
    "number": np.array(complex(-0.0, -0.0)),
    "single": np.array([1e-45 - 2j, complex(-0.0, np.nan)], np.complex64),
    "real": np.ones(3),
}


def test_complex_numbers_are_kept_bit_for_bit(tmp_path):
    """safetensors has no complex128: its parts are two arrays, in metadata named one."""
    path = tmp_path / "file.safetensors"
    files.write(path, COMPLEX, {"made": "here"})
    same(files.read(path), COMPLEX)
    arrays, about = files.stored(path)
    assert about == {"made": "here"}
    assert arrays["w"].dtype == complex
    assert arrays["w"].shape == (2, 2)
    theirs = load_file(path)
    assert theirs["w.real"].tobytes() == COMPLEX["w"].real.tobytes()
    assert theirs["w.imag"].tobytes() == COMPLEX["w"].imag.tobytes()


def test_complex64_of_others(tmp_path):
    path, a = tmp_path / "theirs.safetensors", COMPLEX["single"]
    header = {"single": ("C64", [2], [0, 16])}
    path.write_bytes(made(header, a.tobytes()))
    same(files.read(path), {"single": a})


def test_complex_numbers_where_the_package_has_no_complex64(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_is_held", lambda dtype: False)
    files.write(tmp_path / "file.safetensors", COMPLEX)
    assert "single.imag" in load_file(tmp_path / "file.safetensors")
    same(files.read(tmp_path / "file.safetensors"), COMPLEX)


PARTS = {"w.real": np.ones(2), "w.imag": np.ones(2)}
NOT_TWO = {
    "no list": (PARTS, "3"),
    "no JSON": (PARTS, "w"),
    "not there": (PARTS, '["v"]'),
    "other shapes": (PARTS | {"w.imag": np.ones(1)}, '["w"]'),
    "other dtypes": (PARTS | {"w.imag": np.ones(2, "f")}, '["w"]'),
    "integers": ({name: np.ones(2, int) for name in PARTS}, '["w"]'),
}


@pytest.mark.parametrize("name", NOT_TWO)
def test_metadata_that_tell_of_complex_arrays_that_are_none(name, tmp_path):
    arrays, said = NOT_TWO[name]
    save_file(arrays, tmp_path / "file", {"bptt_jax.complex": said})
    with pytest.raises(ValueError, match=r"file: bptt_jax\.complex .*: damaged"):
        files.read(tmp_path / "file")


def test_arrays_that_are_called_like_parts(tmp_path):
    save_file(PARTS, tmp_path / "theirs")  # with no metadata they are two
    same(files.read(tmp_path / "theirs"), PARTS)
    with pytest.raises(ValueError, match=r"w\.real: also the name of a part of w"):
        files.write(tmp_path / "ours", PARTS | {"w": np.ones(2, complex)})
    assert not (tmp_path / "ours").exists()


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        files.write(path, ARRAYS)
    assert path.read_text() == "mine"
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is there already"):
        files.write(dangling, ARRAYS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.safetensors", "link"]


def test_what_comes_into_being_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "file.safetensors"

    def slow(arrays, metadata):
        path.write_text("mine")
        return save(arrays, metadata)

    monkeypatch.setattr(files, "save", slow)
    with pytest.raises(ValueError, match="is there already"):
        files.write(path, ARRAYS)
    assert path.read_text() == "mine"
    assert [*tmp_path.iterdir()] == [path]


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fails(new, data):
        new.write_text("hal")
        raise OSError("no space left")

    monkeypatch.setattr(pathlib.Path, "write_bytes", fails)
    with pytest.raises(OSError, match="no space"):
        files.write(tmp_path / "file.safetensors", ARRAYS)
    assert not [*tmp_path.iterdir()]
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "file.safetensors")
