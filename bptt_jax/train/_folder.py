"""Whose a folder is: the run's that goes on there, or another one's."""

import pathlib
from collections.abc import Callable

from bptt_jax._files import replace_json
from bptt_jax._processes import first, together
from bptt_jax.train import _record


def found(
    out: pathlib.Path, now: dict, overwrite: bool, reschedule: bool, say: Callable
) -> dict | None:
    """The record in the folder, if the run there is this one; None where is none."""
    ways = "choose another folder (out), or overwrite=True, which moves that run aside"
    try:
        saved = _record.read(out)
        if saved is None:
            return None
        differs = _record.differences(saved, now)
        longer = now["steps"] > saved["steps"]
        if longer and set(differs) == {"optimizer"}:
            if reschedule:
                return saved
            ways += ", or reschedule=True, which goes on with the new optimizer"
        if not differs:
            return saved
        what = ", ".join(differs.values())
        problem = f"{out} holds another run; what differs: {what}"
    except ValueError as error:  # no record that can be read
        problem = str(error)
    together("record read")
    if not overwrite:
        raise ValueError(f"{problem}; nothing was changed; {ways}")
    if first():
        say(f"{problem}; it was moved to {_record.move_aside(out)}")
    together("moved aside")
    return None


def claim(
    out: pathlib.Path, saved: dict | None, now: dict, position: int, say: Callable
) -> None:
    """Writes the record, or what has changed since; nothing is trained before."""
    if position > now["steps"]:
        raise ValueError(
            f"{out} holds {position:,} steps of this run, more than the "
            f"{now['steps']:,} asked for; nothing was changed; choose another folder (out)"
        )
    together("record read")
    if saved is None:
        new = now
    elif _record.same(saved, now):
        new = _record.described(saved, now)
        if new == saved:
            return
    else:
        new = _record.continued(saved, now, position)
        for text in _record.from_here(saved, now):
            say(f"from step {position:,} on: {text}")
    if first():
        replace_json(out / _record.FILE, new)
    together("record written")
