"""What made a run, kept in its folder: only the same goes on with it.

Of seed, options and data the record has the values, of functions fingerprints. Those are of
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
from bptt_jax import _files, estimators, layers, unrolls
from bptt_jax._processes import first as first_process
from bptt_jax._score import LEAST_LOSS, Score
from bptt_jax.train import _about
from bptt_jax.train._fingerprint import changes, digest, fingerprint, shapes
from bptt_jax.train._step import TrainState, update
from bptt_jax.types import (
    Batch,
    Estimator,
    Gradient,
    Layer,
    Sections,
    Side,
    Task,
    Text,
    Weighted,
)

FILE = "run.json"
OF_A_RUN = (
    "checkpoint", "metrics.jsonl", "metrics.jsonl.damaged", "timings.jsonl",
    "timings.jsonl.damaged", "loss.png", "confusion.png", "forecast.png", "residuals.png",
    "initial.safetensors", "tokenizer.json", "tokenizer.model", "config.json", FILE,
)  # fmt: skip
"""The last is moved last, so that one whose moving was stopped is still known."""
OPTIONS = (
    "jax_default_prng_impl", "jax_threefry_partitionable", "jax_enable_x64",
)  # fmt: skip
"""Settings of JAX that change every number that is drawn or computed."""
ONCE = {"score": str(LEAST_LOSS)}
"""What groups were that earlier records do not have."""
SHOWN = {"plan": "options.", "options": ""}
"""What comes before a name of a group of the record, whose keys are those of 0.1.0."""


def made_of(
    task: Task,
    model: Layer | Sections,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    options: Any,
    seed: int,
    state: TrainState,
    score: Score = LEAST_LOSS,
) -> dict[str, Any]:
    """The record of a run that begins with `state`, as JSON has it."""
    others = options._asdict()
    updates = others.pop("updates")
    about = dict(n_in=task.n_in, n_out=task.n_out, tokens=task.tokens)
    lengths = [stream.length for stream in (task.train, task.held_out)]
    record = dict(
        made=dict(
            seed=int(seed),
            plan=others,
            task=about | dict(stateful=task.stateful, lengths=lengths) | task.record,
            options={name: getattr(jax.config, name) for name in OPTIONS},
            score=str(score),
        ),
        program=_program(task, model, estimator, optimizer, state),
        versions=_versions(),
        steps=updates,
        earlier=[],
        **_about.about(task, model),
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
    layer = layers.model_of(model)

    def through(params, batch):
        batch = estimators.with_keys(batch, key)
        carry = estimators.init_carry(layer, params, batch)
        params = layers.with_context(params, batch.context)
        at = params, carry, batch.inputs, batch.side
        if isinstance(layer, Sections):
            (_, ys), side = unrolls.through(unrolls.scan, layer, *at)
            return ys, side.targets
        return layer.fwd(*at)[1], batch.side.targets

    def outputs(params, batch):
        return through(params, batch)[0]

    ys, targets = jax.eval_shape(through, state.params, batch)
    targets = targets.targets if isinstance(targets, Weighted) else targets
    of_task = [
        fingerprint(task.train.batch, items[0], key),
        fingerprint(task.held_out.batch, items[1], key),
        fingerprint(task.objective, ys, targets),
        *(digest(_first_and_last(stream)) for stream in (task.train, task.held_out)),
    ]
    grad = fingerprint(estimator.grad, state.params, state.estimator_state, batch, key)
    return dict(
        task=" ".join(of_task),
        model=fingerprint(outputs, state.params, batch),
        shapes=shapes(state.params),
        parameters=digest(state.params),
        optimizer=_of_optimizer(optimizer, state),
        estimator=grad,
        carry=digest(state.estimator_state),
    )


def _of_optimizer(optimizer: optax.GradientTransformation, state: TrainState) -> str:
    """Of an update whose gradient is given, and of what comes before the first."""

    def given(params, state, batch, key):
        return Gradient(jnp.zeros(()), params, state, jnp.ones(()), {})

    estimator = Estimator(lambda params, batch: (), given)

    def batch(item, key):
        return Batch(item, Side())

    def one(state, item):
        return update(estimator, optimizer, batch, state, item)

    state = state._replace(estimator_state=())
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
            if _is_record(found):
                return found
            raise ValueError("it is no record of a run")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({error})") from None
    metrics, checkpoints = out / "metrics.jsonl", out / "checkpoint"
    if (metrics.is_file() and metrics.stat().st_size) or (
        checkpoints.is_dir() and any(p.name.isdigit() for p in checkpoints.iterdir())
    ):
        raise ValueError(f"{out} holds a run without {FILE}, which says what made it")
    return None


def _is_record(found: Any) -> bool:
    """Whether it has all that records have had since 0.1.0."""
    groups = dict(made=dict, program=dict, versions=dict, steps=int, earlier=list)
    if not _has(found, **groups):
        return False
    made = found["made"]
    return (
        _has(made, seed=int, plan=dict, task=dict, options=dict)
        and isinstance(made.get("score", ""), str)
        and all(_has(part, until=int, versions=dict) for part in found["earlier"])
    )


def _has(found: Any, **kinds: type) -> bool:
    if not isinstance(found, dict):
        return False
    return all(type(found.get(name)) is kind for name, kind in kinds.items())


def same(saved: dict, now: dict) -> bool:
    """Whether the record in a folder is that of the run as it goes on."""
    return all(saved[name] == now[name] for name in ("program", "versions", "steps"))


def described(saved: dict, now: dict) -> dict[str, Any]:
    """The record of the same run, with what this version says of model and task."""
    return saved | {name: now[name] for name in _about.KEYS}


def from_here(saved: dict, now: dict) -> list[str]:
    """What is another from here on and yet the same run, in words."""
    found = []
    if versions := changes(saved["versions"], now["versions"]):
        found.append(
            f"{', '.join(versions)}; whether model, estimator, optimizer, initial "
            "parameters and objective are those of before cannot be compared"
        )
    elif saved["program"]["optimizer"] != now["program"]["optimizer"]:
        found.append(
            "another optimizer, whose schedule may run over all steps; the result is not "
            "that of one run of so many"
        )
    if saved["steps"] != now["steps"]:
        found.append(
            f"{now['steps']:,} steps in all, before it were {saved['steps']:,}"
        )
    return found


def differences(saved: dict, now: dict) -> dict[str, str]:
    """Name -> what differs, in words; empty where the run is the same."""
    found = {}
    for group, values in now["made"].items():
        before = saved["made"].get(group, ONCE.get(group))
        nested = isinstance(values, dict) and isinstance(before, dict)
        prefix = SHOWN.get(group, f"{group}.")
        changed = (
            changes(before, values, prefix)
            if nested
            else changes({group: before}, {group: values})
        )
        if changed:
            found[group] = ", ".join(changed)
    if saved["versions"] != now["versions"]:
        return found
    old, new = saved["program"], now["program"]
    others = {name for name in new if old.get(name) != new[name]}
    if "shapes" not in others and not _like_batches(old, new):
        others.discard("model")  # its fingerprint is at the shapes of a batch
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


def _like_batches(old: dict, new: dict) -> bool:
    """Whether training batches are made by the same program, and so of the same shapes."""
    one, other = (str(program.get("task")).split(" ")[0] for program in (old, new))
    return one == other


def continued(saved: dict, now: dict, position: int) -> dict[str, Any]:
    """The record from here on, with what the run has been so far."""
    before = {name: saved[name] for name in ("program", "versions", "steps")}
    return now | dict(earlier=[*saved["earlier"], before | dict(until=position)])


def keep_tokenizer(out: pathlib.Path, text: Text | None) -> None:
    """Beside the run, where it can be written down as data."""
    if text is None or text.written is None or not first_process():
        return
    name, content = text.written()
    path = out / name
    if not path.exists() or path.read_bytes() != content:
        _files.replace(path, lambda new: new.write_bytes(content))


def move_aside(out: pathlib.Path) -> pathlib.Path:
    """The run in a folder into a folder of its own in there; gives that."""
    free = (out / f"before-{n}" for n in itertools.count(1))
    aside = next(path for path in free if not path.exists())
    aside.mkdir()
    for name in OF_A_RUN:
        if (out / name).exists():
            (out / name).replace(aside / name)
    return aside
