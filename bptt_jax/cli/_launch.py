"""`bptt-jax launch`: one command in several processes, on this machine or on others.

Each process joins the others by `jax.distributed`. If one ends badly the others cannot go
on (their runtime ends them, with a stack in C++, or waits for ever), so all are stopped.
"""

import dataclasses
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jax

from bptt_jax.cli import JOINED, _parse, main

VARIABLES = JOINED, "BPTT_JAX_PROCESSES", "BPTT_JAX_PROCESS"
CLEAR = "bptt-jax: ", "interrupted"  # how a process says why it has ended
LOCAL = "localhost"
GRACE = 3.0  # seconds a process has to end by itself once another has
HEARTBEAT = 20  # seconds after which a silent process is taken for dead


@dataclasses.dataclass(frozen=True)
class Launch:
    """Run a command in several processes: bptt-jax launch --processes 2 -- sweep …

    Everything after -- is the command. Under SLURM and on TPU pods, which start the
    processes themselves, it is: srun bptt-jax launch --join -- sweep …
    """

    processes: int = 1
    """Processes on this machine."""
    hosts: str = ""
    """Instead: names of machines, a,b,c, a process on each, started by ssh; the folder
    and the Python of this one must be there, too. A name may be localhost."""
    port: int = 0
    """Of the first process, for the others to find it; by default a free one."""
    join: bool = False
    """This is one process of many that something else has started (SLURM, a TPU pod)."""


def command(argv: list[str]) -> int:
    mine, ran = (
        (argv[: argv.index("--")], argv[argv.index("--") + 1 :])
        if "--" in argv
        else (argv, [])
    )
    s = _parse.parse(Launch, mine, "bptt-jax launch")
    if not ran or ran[0] not in ("sweep", "train"):
        raise ValueError("launch: expected -- sweep … or -- train … after the options")
    if s.processes < 1:
        raise ValueError(f"--processes must be at least 1, got {s.processes}")
    if s.join:
        join()
        return main(ran)
    hosts = s.hosts.split(",") if s.hosts else [LOCAL] * s.processes
    if not all(hosts):
        raise ValueError(f"--hosts {s.hosts}: an empty name")
    return _supervised(hosts, s.port or free_port(), ran)


def join() -> None:
    """Joins the processes that the environment names, before anything uses a device."""
    coordinator, processes, process = (os.environ.get(name) for name in VARIABLES)
    # more devices than one in a process have been seen to wait for each other for ever
    jax.config.update("jax_num_cpu_devices", 1)
    if coordinator is None:
        jax.distributed.initialize()  # as SLURM, MPI or a TPU pod says
        return
    jax.distributed.initialize(
        coordinator, int(processes or 1), int(process or 0),
        initialization_timeout=120, heartbeat_timeout_seconds=HEARTBEAT,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


def _supervised(hosts: list[str], port: int, ran: list[str]) -> int:
    """Starts a process on each host and waits; all end when one ends badly."""
    first = "127.0.0.1" if set(hosts) == {LOCAL} else hosts[0]
    first = socket.gethostname() if first == LOCAL else first
    with tempfile.TemporaryDirectory() as folder:
        errors = [pathlib.Path(folder) / f"{i}" for i in range(len(hosts))]
        run = [sys.executable, "-m", "bptt_jax", *ran]
        processes = [
            start(host, f"{first}:{port}", len(hosts), i, run, errors[i])
            for i, host in enumerate(hosts)
        ]
        former = signal.signal(
            signal.SIGTERM, lambda *_: _tell(processes, signal.SIGTERM)
        )
        try:
            return _wait(hosts, processes, errors)
        finally:
            _stop(processes)
            signal.signal(signal.SIGTERM, former)


def start(host, coordinator, n, i, run, errors) -> subprocess.Popen:
    """Process i of n, in a session of its own: signals come from here, to all alike."""
    variables = dict(zip(VARIABLES, (coordinator, str(n), str(i)), strict=True))
    if host != LOCAL:
        there = [f"{k}={v}" for k, v in variables.items()]
        remote = shlex.join(["env", *there, *run])
        run = ["ssh", "-tt", host, f"cd {shlex.quote(os.getcwd())} && exec {remote}"]
    return subprocess.Popen(
        run,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=None if i == 0 else subprocess.DEVNULL,
        stderr=errors.open("wb"),
        start_new_session=True,
    )


def _wait(hosts, processes, errors) -> int:
    told = 0
    while True:
        try:
            states = [p.poll() for p in processes]
            bad = [i for i, status in enumerate(states) if status]
            if bad:
                return _failed(hosts, processes, errors, bad[0])
            if all(status == 0 for status in states):
                return 0
            time.sleep(0.05)
        except KeyboardInterrupt:
            told += 1
            _tell(processes, signal.SIGINT if told == 1 else signal.SIGKILL)


def _failed(hosts, processes, errors, first: int) -> int:
    """All are stopped; what the one that failed first has said, or that it ended."""
    ends = time.monotonic() + GRACE
    while time.monotonic() < ends and any(p.poll() is None for p in processes):
        time.sleep(0.05)
    died = [i for i, p in enumerate(processes) if (p.poll() or 0) < 0]
    _stop(processes)
    statuses = [p.wait() for p in processes]
    # a process that was killed is why others say that they have lost it
    killed = [i for i in died if statuses[i] != -signal.SIGABRT]
    first = killed[0] if killed else first
    for status, path in zip(statuses, errors, strict=True):
        said = path.read_text(errors="replace").strip().splitlines()
        clear = status in (1, 2, 130) and said and said[-1].startswith(CLEAR)
        if clear and not killed:
            print(said[-1], file=sys.stderr)
            return status
    how = f"signal {-statuses[first]}" if statuses[first] < 0 else f"{statuses[first]}"
    if os.environ.get("BPTT_JAX_DEBUG"):
        print(errors[first].read_text(errors="replace"), file=sys.stderr)
    print(
        f"bptt-jax: process {first} on {hosts[first]} ended with {how}; all "
        f"{len(hosts)} were stopped. The same command continues a run",
        file=sys.stderr,
    )
    return 1


def _tell(processes, what: int) -> None:
    for p in processes:
        if p.poll() is None:
            os.killpg(p.pid, what)


def _stop(processes) -> None:
    _tell(processes, signal.SIGKILL)
    for p in processes:
        p.wait()
