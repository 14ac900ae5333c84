"""Files are whole or not there, lines cost no others, and a folder has one owner."""

import contextlib
import errno
import json
import os
import pathlib
import pwd
import signal
import subprocess
import sys
import threading

import pytest

from bptt_jax import _files

# Writing


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "deep" / "a.json"
    _files.replace_json(path, {"a": "é"})
    assert json.loads(path.read_text()) == {"a": "é"}

    def half(new):
        new.write_text("hal")
        raise OSError(errno.ENOSPC, "No space left on device")

    for write in (_files.replace, _files.create):
        with pytest.raises(OSError, match=f"No space left on device: '{path}'$"):
            write(path, half)
    assert json.loads(path.read_text()) == {"a": "é"}
    assert names(path.parent) == ["a.json"]


def test_what_a_full_disk_has_caused_is_the_systems_own_error(tmp_path):
    """Whatever a format makes of it; of other errors only what names no file."""
    path, full = tmp_path / "a", os.strerror(errno.ENOSPC)
    for error in (
        ValueError(f"INTERNAL: [OS error 28: {full}]"),
        OSError(errno.ENOSPC, full, "elsewhere"),
        OSError(errno.ENOSPC, full),
    ):
        with (
            pytest.raises(OSError, match=f"28.*{full}: '{path}'$"),
            _files.naming(path),
        ):
            raise error
    with pytest.raises(PermissionError, match="b.new"), _files.naming(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "b.new")
    aside = tmp_path / "a.new"
    with pytest.raises(PermissionError, match="a'$"), _files.naming(path, aside):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(aside))
    with pytest.raises(ValueError, match="^other$"), _files.naming(path):
        raise ValueError("other")


def test_what_is_new_takes_the_place_of_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a"
    _files.create(path, lambda new: new.write_text("mine"))
    with pytest.raises(FileExistsError):
        _files.create(path, lambda new: new.write_text("other"))
    assert path.read_text() == "mine"

    def no_links(*at):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    _files.create(tmp_path / "b", lambda new: new.write_text("b"))
    assert names(tmp_path) == ["a", "b"]


def test_what_a_killed_process_leaves_is_known(tmp_path):
    seen = []
    _files.replace(tmp_path / "a.png", lambda new: (seen.append(new), new.touch()))
    assert _files.is_left_over(seen[0])
    assert not any(map(_files.is_left_over, [tmp_path / "a.new", tmp_path / "lock"]))


# JSON lines


def test_a_line_that_cannot_be_read_costs_no_other(tmp_path):
    path = tmp_path / "rows.jsonl"
    bad = [b"{", b"[1]", b"\xff\xfe", b'{"step": 5.5}', b"[" * 100_000]
    lines = [b'{"step": 1}', *bad, b"", b'{"step": 2}', b'{"st']
    path.write_bytes(b"\n".join(lines))
    found = _files.read_lines(path, lambda line: isinstance(line.get("step"), int))
    assert [line["step"] for line in found.objects] == [1, 2]
    assert [number for number, _ in found.damaged] == [2, 3, 4, 5, 6]
    assert found.cut == b'{"st'
    beside = _files.set_aside(path, found.damaged)
    assert beside.read_bytes() == b"".join(line + b"\n" for line in bad)
    path.write_text('{"step": 1}')  # an editor that ends no line
    assert _files.read_lines(path) == ([{"step": 1}], [], b"")
    assert _files.read_lines(tmp_path / "nothing") == ([], [], b"")


# One owner a folder

OWNER = """
import os, pathlib, signal, sys
from bptt_jax import _files

folder = pathlib.Path(sys.argv[1])
with _files.locked(folder):
    child = os.fork()
    if not child:
        os.write(1, b"forked\\n")
        signal.pause()
    execed = os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ)
    os.write(1, f"{child} {execed}\\n".encode())
    signal.pause()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_another_process_is_refused_until_it_dies(tmp_path):
    """Its children, forked and executed, live on, and have no lock."""
    folder = tmp_path / "runs" / "a"
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, folder], stdout=subprocess.PIPE, text=True
    )
    children = []
    try:
        said = sorted(process.stdout.readline() for _ in range(2))
        assert said[1] == "forked\n"
        children = [int(pid) for pid in said[0].split()]
        with (
            pytest.raises(ValueError, match="is in use by") as refused,
            _files.locked(folder),
        ):
            raise AssertionError("two owners")
        assert f"runs/a is in use by process {process.pid} on " in str(refused.value)
        assert " since 20" in str(refused.value)
    finally:
        process.kill()
        process.wait()
    for child in children:
        os.kill(child, 0)
    with _files.locked(folder):
        assert names(folder) == [".bptt_jax.lock"]
    assert names(folder) == []
    for child in children:
        os.kill(child, signal.SIGKILL)


def test_the_same_process_again_goes_on(tmp_path):
    folder = tmp_path / "a"
    with contextlib.suppress(KeyboardInterrupt), _files.locked(folder):
        with _files.locked(folder):
            pass
        (folder / "mine").touch()
        raise KeyboardInterrupt
    with _files.locked(folder):
        pass
    assert names(folder) == ["mine"]


def test_what_was_made_and_not_filled_is_taken_away(tmp_path):
    with _files.locked(tmp_path / "runs" / "a"):
        assert (tmp_path / "runs" / "a").is_dir()
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"), _files.locked(tmp_path / "file"):
        pass
    assert names(tmp_path) == ["file"]


def test_of_two_threads_one_is_refused(tmp_path):
    said = []

    def other():
        try:
            with _files.locked(tmp_path):
                said.append("in")
        except ValueError as error:
            said.append(str(error))

    def alone():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    with _files.locked(tmp_path):
        alone()
    alone()
    assert "in use by another thread of this process" in said[0]
    assert said[1:] == ["in"]


def test_where_there_are_no_locks_it_is_said(tmp_path, monkeypatch):
    def none(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_files, "_flock", none)
    said = []
    with _files.locked(tmp_path, said.append):
        pass
    assert "cannot be locked (No locks available)" in said[0]
    assert names(tmp_path) == []
    with pytest.warns(UserWarning, match="cannot be locked"), _files.locked(tmp_path):
        pass


def test_a_lock_that_was_taken_away_meanwhile_is_not_had(tmp_path, monkeypatch):
    """Opened while the owner before was giving it back, which removes the file."""
    flock = _files._flock
    stale = []

    def slow(descriptor):
        flock(descriptor)
        if not stale:
            stale.append(descriptor)
            (tmp_path / ".bptt_jax.lock").unlink()

    monkeypatch.setattr(_files, "_flock", slow)
    with _files.locked(tmp_path):
        owner = json.loads((tmp_path / ".bptt_jax.lock").read_text())
        assert owner["pid"] == os.getpid()
    assert stale


# What is remembered


def test_a_user_without_a_home_remembers_nothing(tmp_path, monkeypatch):
    """`docker run --user`: no HOME, and a number that no file of users has."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert _files.cache_folder() is None
    _files.remember(None, {})
    assert _files.remembered(None) == {}
    monkeypatch.setenv("HOME", "/")
    assert _files.cache_folder() == pathlib.Path("/.cache/bptt_jax")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert _files.cache_folder() is None
    assert names(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_none(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "bptt_jax" / "layouts.json"
    _files.remember(path, {"a": 1})
    assert _files.remembered(path) == {}
    good = tmp_path / "new" / "a.json"
    _files.remember(good, {"a": 1})
    assert _files.remembered(good) == {"a": 1}
    for content in (b"{", b"[1]", b"\xff", b"[" * 100_000):
        good.write_bytes(content)
        assert _files.remembered(good) == {}
