"""`bptt-jax check`: is every gradient of the library right on this machine?"""

import dataclasses

from rich.console import Console

from bptt_jax import verify
from bptt_jax.cli._parse import parse


@dataclasses.dataclass(frozen=True)
class Check:
    """Check every cell, layer, unroll and whole in float64, and look for miscompilations."""

    only: str = ""
    """Only the members whose name holds this."""
    quick: bool = False
    """One case, with stretches, mask, resets and keys, compared once, of the members
    that are no part of another: less than a minute."""


QUICK = dict(
    lengths=(6,),
    chunks=(3,),
    batch_shapes=((3,),),
    sides=("both",),
    seed=1,
    quick=True,
)
SECONDS = {True: 1.5, False: 18.0}
"""Processor time of a member, quick or not, on one core of a server of 2024."""
PAGE = "docs/miscompilations.md"


def command(argv: list[str]) -> int:
    s = parse(Check, argv, "bptt-jax check")
    console = Console(highlight=False)
    racks = dict(
        cells=verify.CELLS,
        layers=verify.LAYERS,
        unrolls=verify.UNROLLS,
        wholes=verify.WHOLES,
    )
    members = {
        f"{rack}: {name}": member
        for rack, each in racks.items()
        for name, member in each.items()
        if s.only in name and not member.alike
        if s.only or not (s.quick and member.part_of)
    }
    if not members:
        raise ValueError(
            f"--only {s.only}: no cell, layer, unroll or whole has it in its name"
        )
    console.print(_beforehand(len(members), s.quick), markup=False, soft_wrap=True)
    wrong = 0
    for i, (name, member) in enumerate(members.items(), 1):
        place = f"{i} of {len(members)}, {name}"
        wrong += not _show(console, place, member, s)
    findings = verify.canary()
    for finding in findings:
        console.print(str(finding), markup=False, soft_wrap=True)
    told = f"\n{len(members) - wrong} right, {wrong} wrong; {_of_compiler(findings)}"
    console.print(told, markup=False, soft_wrap=True)
    return 1 if wrong or not all(finding.avoided for finding in findings) else 0


def _beforehand(members: int, quick: bool) -> str:
    seconds = 10 + members * SECONDS[quick]
    lasts = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    return f"{members} members, about {lasts}{'' if quick else ' (--quick: less)'}"


def _of_compiler(findings: list[verify.Finding]) -> str:
    """What the compiler does wrongly is no fault of the library, if it is avoided."""
    here = [finding for finding in findings if not finding.right]
    told = f"of {len(findings)} known miscompilations {len(here)} are on this machine"
    if reached := [finding for finding in findings if not finding.avoided]:
        return f"{told}, {len(reached)} of them NOT avoided by this library ({PAGE})"
    return f"{told}, all avoided by this library ({PAGE})" if here else told


def _show(console: Console, name: str, member: verify.Member, s: Check) -> bool:
    with console.status(name):
        try:
            report = verify.check_member(name, member, **(QUICK if s.quick else {}))
        except (verify.GradientError, verify.ClaimError) as error:
            console.print(f"{name}: {error}", markup=False, soft_wrap=True)
            return False
    console.print(str(report), markup=False, soft_wrap=True)
    return True
