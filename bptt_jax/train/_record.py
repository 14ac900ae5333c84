"""What made a run, kept in its folder: only the same goes on with it.

Of seed, plan and data the record has the values, of functions fingerprints. Those are of
one version of the libraries: where another one made them they are not compared.
"""

import importlib.metadata
import itertools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import optax

import bptt_jax
from bptt_jax import estimators, layers
from bptt_jax.train._fingerprint import changes, digest, fingerprint, shapes
from bptt_jax.train._step import TrainState, update
from bptt_jax.types import Batch, Estimator, Gradient, Layer, Side, Task, Weighted

FILE = "run.json"
OF_A_RUN = (
    "checkpoint", "metrics.jsonl", "metrics.jsonl.damaged", "loss.png", "config.json", FILE,
)  # fmt: skip
"""The last is moved last, so that one whose moving was stopped is still known."""
OPTIONS = (
    "jax_default_prng_impl", "jax_threefry_partitionable", "jax_enable_x64",
)  # fmt: skip
"""Settings of JAX that change every number that is drawn or computed."""


def made_of(
    task: Task,
    model: Layer,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    plan: Any,
    seed: int,
    state: TrainState,
) -> dict[str, Any]:
    """The record of a run that begins with `state`, as JSON has it."""
    of_plan = plan._asdict()
    steps = of_plan.pop("steps")
    about = dict(n_in=task.n_in, n_out=task.n_out, tokens=task.tokens)
    lengths = [stream.length for stream in (task.train, task.held_out)]
    record = dict(
        made=dict(
            seed=int(seed),
            plan=of_plan,
            task=about | dict(stateful=task.stateful, lengths=lengths) | task.record,
            options={name: getattr(jax.config, name) for name in OPTIONS},
        ),
        program=_program(task, model, estimator, optimizer, state),
        versions=_versions(),
        steps=steps,
        earlier=[],
    )
    return json.loads(json.dumps(record, default=_as_json))


def _as_json(value: Any) -> Any:
    """NumPy's numbers as Python's, so that both are the same."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "optax")
    versions = {name: importlib.metadata.version(name) for name in names}
    own = dict(bptt_jax=bptt_jax.__version__, platform=jax.default_backend())
    return own | versions


def _program(task, model, estimator, optimizer, state: TrainState) -> dict[str, Any]:
    """Fingerprints of the parts, none of which has another one's functions in it.

    But for the estimator, which computes with the model and the objective.
    """
    key = jax.random.key(0)
    items = [
        jax.tree.map(lambda a: jnp.asarray(a[0]), stream.read(0, 1))
        for stream in (task.train, task.held_out)
    ]
    batch = jax.eval_shape(task.train.batch, items[0], key)
    layer = layers.lift(model, "model")

    def outputs(params, batch):
        batch = estimators.with_keys(batch, key)
        carry = estimators.init_carry(layer, params, batch)
        return layer.fwd(params, carry, batch.inputs, batch.side)[1]

    ys = jax.eval_shape(outputs, state.params, batch)
    targets = batch.side.targets
    targets = targets.targets if isinstance(targets, Weighted) else targets
    of_task = [
        fingerprint(task.train.batch, items[0], key),
        fingerprint(task.held_out.batch, items[1], key),
        fingerprint(task.objective, ys, targets),
        *(digest(_first_and_last(stream)) for stream in (task.train, task.held_out)),
    ]
    grad = fingerprint(estimator.grad, state.params, state.carry, batch, key)
    return dict(
        task=" ".join(of_task),
        model=fingerprint(outputs, state.params, batch),
        shapes=shapes(state.params),
        parameters=digest(state.params),
        optimizer=_of_optimizer(optimizer, state),
        estimator=grad,
        carry=digest(state.carry),
    )


def _of_optimizer(optimizer: optax.GradientTransformation, state: TrainState) -> str:
    """Of an update whose gradient is given, and of what comes before the first."""

    def given(params, carry, batch, key):
        return Gradient(jnp.zeros(()), params, carry, jnp.ones(()), {})

    estimator = Estimator(lambda params, batch: (), given)

    def batch(item, key):
        return Batch(item, Side())

    def one(state, item):
        return update(estimator, optimizer, batch, state, item)

    state = state._replace(carry=())
    begin = fingerprint(optimizer.init, state.params)
    return begin + " " + fingerprint(one, state, jnp.zeros((1, 1)))


def _first_and_last(stream) -> list:
    """What can be seen of data without reading all of them."""
    last = () if stream.length is None else stream.read(stream.length - 1, 1)
    return [stream.read(0, 1), last]


def read(out: pathlib.Path) -> dict[str, Any] | None:
    """The record in a folder; None where it holds no run.

    Raises:
      ValueError: there is a run and no record that can be read.
    """
    path = out / FILE
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if {"made", "program", "versions", "steps", "earlier"} <= set(found):
                return found
            raise ValueError("it is no record of a run")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error})") from None
    metrics, checkpoints = out / "metrics.jsonl", out / "checkpoint"
    if (metrics.is_file() and metrics.stat().st_size) or (
        checkpoints.is_dir() and any(p.name.isdigit() for p in checkpoints.iterdir())
    ):
        raise ValueError(f"{out} holds a run without {FILE}, which says what made it")
    return None


def same(there: dict, now: dict) -> bool:
    """Whether the record in a folder is that of the run as it goes on."""
    return all(there[name] == now[name] for name in ("program", "versions", "steps"))


def from_here(there: dict, now: dict) -> list[str]:
    """What is another from here on and yet the same run, in words."""
    found = []
    if versions := changes(there["versions"], now["versions"]):
        found.append(
            f"{', '.join(versions)}; whether model, estimator, optimizer, initial "
            "parameters and objective are those of before cannot be compared"
        )
    elif there["program"]["optimizer"] != now["program"]["optimizer"]:
        found.append(
            "another optimizer, whose schedule may run over all steps; the result is not "
            "that of one run of so many"
        )
    if there["steps"] != now["steps"]:
        found.append(
            f"{now['steps']:,} steps in all, before it were {there['steps']:,}"
        )
    return found


def differences(there: dict, now: dict) -> dict[str, str]:
    """Name -> what differs, in words; empty where the run is the same."""
    found = {}
    for group, values in now["made"].items():
        before = there["made"].get(group)
        nested = isinstance(values, dict) and isinstance(before, dict)
        prefix = "" if group == "options" else f"{group}."
        changed = (
            changes(before, values, prefix)
            if nested
            else changes({group: before}, {group: values})
        )
        if changed:
            found[group] = ", ".join(changed)
    if there["versions"] != now["versions"]:
        return found
    old, new = there["program"], now["program"]
    others = {name for name in new if old.get(name) != new[name]}
    first_shapes = changes(old["shapes"], new["shapes"], "params")[:2]
    for name, words, implied_by in (
        ("task", "the task's data or objective", {"options"}),
        ("model", "the model", {"options"}),
        ("shapes", ", ".join(first_shapes), set()),
        ("optimizer", "the optimizer", {"options", "shapes"}),
        (
            "estimator",
            "the estimator or the model's backward",
            {"options", "task", "model"},
        ),
        ("parameters", "the initial parameters", {"seed", "options", "model"}),
        ("carry", "the estimator's first state", set(now["made"]) | set(new)),
    ):
        if name in others and not implied_by & set(found):
            found.setdefault(name, words)
    return found


def continued(there: dict, now: dict, position: int) -> dict[str, Any]:
    """The record from here on, with what the run has been so far."""
    before = {name: there[name] for name in ("program", "versions", "steps")}
    return now | dict(earlier=[*there["earlier"], before | dict(until=position)])


def move_aside(out: pathlib.Path) -> pathlib.Path:
    """The run in a folder into a folder of its own in there; gives that."""
    free = (out / f"before-{n}" for n in itertools.count(1))
    aside = next(path for path in free if not path.exists())
    aside.mkdir()
    for name in OF_A_RUN:
        if (out / name).exists():
            (out / name).replace(aside / name)
    return aside
