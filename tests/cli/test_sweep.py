"""`bptt-jax sweep`: lists and ranges, one table, and what is wrong in one line."""

import concurrent.futures
import contextlib
import json
import os
import subprocess
import sys

import pytest

from bptt_jax import cli, sweep
from bptt_jax.cli import _cluster, _sweep
from bptt_jax.cli._lists import split
from support import compiled

TINY = (
    "sweep", "--task", "adding", "--hidden", "4", "--length", "8", "--batch", "3",
    "--steps", "4", "--lanes", "1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def devices_as_they_are(monkeypatch):
    """In this process other tests have one."""
    monkeypatch.setattr(_sweep, "_devices", lambda out: None)


@pytest.mark.parametrize(
    ("value", "values"),
    [
        ("--lr 0.1,0.01", ["0.1", "0.01"]),
        ("--lr=1e-3:1e-1:log:3", ["0.001", "0.01", "0.1"]),
        ("--clip 1:5:lin:3", ["1.0", "3.0", "5.0"]),
        ("--seed 2:5", ["2", "3", "4"]),
        ("--seed 0:2,7", ["0", "1", "7"]),
        ("--cell lstm,gru", ["lstm", "gru"]),
    ],
)
def test_a_value_may_be_a_list_or_a_range(value, values):
    name = value[2:].replace("=", " ").split()[0]
    first, lists = split(value.split())
    assert lists == {name: values}
    assert values[0] in first[-1]


FILES = ("runs/a,b", "12:30", "a,b:3:4.txt")


@pytest.mark.parametrize("option", ["--out", "--text", "--config"])
def test_one_value_is_no_list_and_files_are_left_alone(option):
    for name in FILES:
        for words in ([option, name], [f"{option}={name}"]):
            assert split(["--lr", "0.1", *words]) == (["--lr", "0.1", *words], {})


WRONG = {
    "--lr 1:2:log": "--lr 1:2:log: expected a list a,b,c, a range 0:8, or low:high:log:n",
    "--lr 0:1:log:3": "--lr 0:1:log:3: expected",
    "--lr 1:2:log:1": "n of at least 2",
    "--seed 5:5": "--seed 5:5: expected",
    "--seed 0,0": "--seed 0,0: a value more than once",
    "--lr 0.1,,0.2": "an empty value",
    "--lr 0.1,x": "could not convert string to float: 'x'",
    "--lr 0.1,-1": "--lr must be finite and positive, got -1.0",
    "--cell lstm,nope": "--cell nope: expected one of elman, irnn,",
    "--hidden 4,0": "--hidden must be at least 1, got 0",
    "--epochs 1,2": "--epochs takes one value, got 1,2",
    "--epochs=1,2": "--epochs takes one value, got 1,2",
    "--evaluate-every=1:5": "--evaluate-every takes one value, got 1:5",
    "--checkpoint-every 5": "--checkpoint-every is of bptt-jax train alone",
    "--seed 4294967296": "--seed must lie in [0, 2^32), got 4294967296",
    "--seed 4294967295,4294967296": "--seed must lie in [0, 2^32), got 4294967296",
    "--patience 3": "--patience is of bptt-jax train alone",
    "--halving 1": "--halving must be at least 2, got 1",
    "--lanes 0": "--lanes must be at least 1",
    "--keep 0": "--keep must be at least 1",
    "--dask nowhere": "--dask nowhere: expected the address of a scheduler, tcp://host:8786",
    "--lrr 1": "did you mean",
    "show": "Missing from bptt-jax sweep show",
    "show nowhere": "nowhere is not a sweep",
    "show nowhere --top 0": "--top must be at least 1, got 0",
}


@pytest.mark.parametrize("options", WRONG)
def test_what_is_wrong_is_said_in_one_line(options, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = ("sweep",) if options.startswith("show") else TINY[:9]
    assert cli.main([*start, *options.split()]) == 2
    line = capsys.readouterr().err
    assert line.startswith("bptt-jax: ")
    assert line.count("\n") == 1
    assert WRONG[options] in line
    assert not list(tmp_path.iterdir())


def shows(capsys, *options):
    assert cli.main(["sweep", "show", "s", *options]) == 0
    return capsys.readouterr().out


def test_a_sweep_from_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--cell", "gru,elman", "--lr", "1e-3:1e-1:log:2", "--clip", "1,5",
               "--seed", "0:2", "--out", "s")  # fmt: skip
    assert cli.main([*TINY, *options]) == 0
    said = capsys.readouterr().out
    assert "16 settings: 2 × cell, 2 × lr, 2 × clip, 2 × seed" in said
    assert "16 settings, 0 diverged" in said
    assert "the best 10 of 16; all are in s/results.parquet" in said
    table = sweep.load(tmp_path / "s").table
    assert {"cell", "lr", "clip", "seed", "held_out"} <= set(table.column_names)
    assert set(table["cell"].to_pylist()) == {"gru", "elman"}
    for name in ("held_out-lr.png", "held_out-lr-clip.png", "parallel.png"):
        assert (tmp_path / "s" / name).stat().st_size > 5000
    record = json.loads((tmp_path / "s" / "sweep.json").read_text())["record"]
    assert set(record["chunks"]) == {"cell=gru", "cell=elman"}
    assert all(1 <= chunk <= 8 for chunk in record["chunks"].values())
    assert cli.main(["sweep", "show", "s"]) == 0
    said = capsys.readouterr().out
    assert "16 settings, 0 diverged" in said
    assert "the best 10 of 16; all are in s/results.parquet" in said
    shown = shows(capsys, "--where", "cell=gru", "lr=0.001", "--top", "3")
    assert "3 of 4 that fit, of 16 in all" in shown
    assert (
        "elman"
        not in shown.split("results.parquet")[0]
        .split("diverged")[1]
        .split("the best over seeds")[0]
    )
    shown = shows(capsys, "--sort", "lr", "--maximise", "--top", "8")
    assert "8 of 16; all are in" in shown
    assert shown.count(" 0.1 ") >= 8
    assert "the best over seeds: cell " in shown
    assert "(2 of 2 seeds)" in shown
    shown = shows(capsys, "--seeds", "--where", "clip=5")
    (header,) = [line for line in shown.splitlines() if "std" in line]
    assert header.split() == [
        "cell", "lr", "clip", "step", "seeds", "failed", "held_out", "std", "least", "most",
    ]  # fmt: skip
    for wrong in ("hidden=4", "cell"):
        assert cli.main(["sweep", "show", "s", "--where", wrong]) == 2
        assert "expected name=value of one of cell, lr, clip" in capsys.readouterr().err
    assert cli.main(["sweep", "show", "s", "--sort", "size"]) == 2
    assert "--sort size: expected one of" in capsys.readouterr().err
    assert cli.main([*TINY, *options[:-2], "--steps", "5", "--out", "s"]) == 2
    assert "holds another sweep" in capsys.readouterr().err


def test_what_the_command_line_trains_can_be_sent(tmp_path, monkeypatch):
    """To threads, which unpickle it as Dask's workers do; the table is the same."""
    options = ("--cell", "irnn,elman", "--lr", "0.1,0.01")
    assert cli.main([*TINY, *options, "--out", f"{tmp_path}/plain"]) == 0
    threads = concurrent.futures.ThreadPoolExecutor(1)
    wanted = contextlib.nullcontext(threads)
    monkeypatch.setattr(_sweep, "executor_of", lambda where: wanted)
    with threads:
        assert cli.main([*TINY, *options, "--out", f"{tmp_path}/s"]) == 0
    plain, found = (sweep.load(tmp_path / name).table for name in ("plain", "s"))
    assert found.equals(plain)


@pytest.mark.slow
@compiled.as_users  # as the workers do
def test_a_sweep_on_the_workers_of_dask(capsys, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    options = ("--lr", "0.1,0.01")
    assert cli.main([*TINY, *options, "--out", f"{tmp_path}/plain"]) == 0
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=0
    ) as cluster:
        with cluster.get_client() as client:
            client.write_scheduler_file(f"{tmp_path}/scheduler.json")
        for i, where in enumerate(
            (cluster.scheduler_address, f"{tmp_path}/scheduler.json")
        ):
            said = ("--dask", where, "--out", f"{tmp_path}/{i}")
            assert cli.main([*TINY, *options, *said]) == 0
    plain, *found = (sweep.load(tmp_path / name).table for name in ("plain", "0", "1"))
    assert all(one.equals(plain) for one in found)
    monkeypatch.setattr(_cluster, "SECONDS", 1)
    nowhere = ("--dask", "tcp://127.0.0.1:1", "--out", f"{tmp_path}/x")
    assert cli.main([*TINY, *options, *nowhere]) == 2
    assert "no scheduler there" in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_are_those_of_train(capsys, tmp_path):
    seeds = [1, 2**31, 2**32 - 1]
    options = ("--seed", ",".join(map(str, seeds)), "--steps", "2")
    assert cli.main([*TINY, *options, "--out", f"{tmp_path}/s,1"]) == 0
    found = sweep.load(tmp_path / "s,1").table
    assert sorted(set(found["seed"].to_pylist())) == seeds


@pytest.mark.slow
def test_a_process_of_its_own_uses_all_cores_and_halves(tmp_path):
    out = tmp_path / "s"
    options = (
        "--lr",
        "0.01,0.1,1,10",
        "--seed",
        "0:2",
        "--steps",
        "8",
        "--halving",
        "2",
    )
    command = [sys.executable, "-m", "bptt_jax", *TINY[:9], *options, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "sweep.json").read_text())
    assert record["devices"] == len(os.sched_getaffinity(0))
    last = {r["config"]: r["rung"] for r in sweep.load(out).table.to_pylist()}
    assert sorted(last.values()) == [0, 0, 0, 0, 1, 1, 2, 3]
