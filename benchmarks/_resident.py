"""Peak resident memory of a gradient, each contestant in a process of its own.

python -m benchmarks._resident DEVICE CONTESTANT CASE…     # prints {case: bytes} as JSON

In that process the allocator gives back what is freed, so that the rise during one call
is what the call needs. Linux only.
"""

import ctypes
import json
import pathlib
import subprocess
import sys

M_MMAP_THRESHOLD = -3


def resident_bytes(device: str, contestant: str, cases: list) -> dict[str, int]:
    """`{case: bytes}`; {} where the system does not tell."""
    if not pathlib.Path("/proc/self/clear_refs").exists():
        return {}
    command = [sys.executable, "-m", "benchmarks._resident", device, contestant]
    done = subprocess.run(
        [*command, json.dumps([list(case) for case in cases])],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parent.parent,
    )
    if done.returncode:
        raise RuntimeError(f"{contestant}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def give_back_at_once():
    """From here on the allocator returns what is freed to the system."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 64 * 1024)


def rise(call) -> int:
    """Bytes by which resident memory rises during a call."""
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(a for a in lines if a.startswith(name)).split()[1])


def main():
    from benchmarks._cases import Case
    from benchmarks._contestants import Declined, contestants

    give_back_at_once()
    device, name, cases = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    contestant = {c.name: c for c in contestants(device)[0]}[name]
    found = {}
    for case in (Case(*fields) for fields in cases):
        try:
            program = contestant.build(case, 1)
        except Declined:
            continue
        program.gradient()  # what is allocated once and kept
        found[case.name] = rise(program.gradient)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
