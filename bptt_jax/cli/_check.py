"""`bptt-jax check`: is every gradient of the library right on this machine?"""

import dataclasses

from rich.console import Console

from bptt_jax import verify
from bptt_jax.cli._parse import parse


@dataclasses.dataclass(frozen=True)
class Check:
    """Check every cell, layer and unroll in float64, and look for miscompilations."""

    only: str = ""
    """Only the members whose name holds this."""
    quick: bool = False
    """Fewer lengths, chunks and batch shapes."""


FEW = dict(lengths=(1, 7), chunks=(3,), batch_shapes=((3,),))


def command(argv: list[str]) -> int:
    s = parse(Check, argv, "bptt-jax check")
    console = Console(highlight=False)
    racks = dict(cells=verify.CELLS, layers=verify.LAYERS, unrolls=verify.UNROLLS)
    members = {
        f"{rack}: {name}": member
        for rack, each in racks.items()
        for name, member in each.items()
        if s.only in name
    }
    if not members:
        raise ValueError(
            f"--only {s.only}: no cell, layer or unroll has it in its name"
        )
    wrong = [
        name for name, member in members.items() if not _show(console, name, member, s)
    ]
    for finding in verify.canary():
        console.print(str(finding), markup=False, soft_wrap=True)
    console.print(f"\n{len(members) - len(wrong)} right, {len(wrong)} wrong")
    return 1 if wrong else 0


def _show(console: Console, name: str, member: verify.Member, s: Check) -> bool:
    with console.status(name):
        try:
            report = verify.check_member(name, member, **(FEW if s.quick else {}))
        except verify.GradientError as error:
            console.print(str(error), markup=False, soft_wrap=True)
            return False
    console.print(str(report), markup=False, soft_wrap=True)
    return True
