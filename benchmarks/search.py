"""Optuna's TPE against random draws of its own, on the adding problem, at equal budget.

python -m benchmarks.search            # five seeds; writes benchmarks/results/search.json
python -m benchmarks.search --quick    # one seed, few trials, writes nothing

Each trial is the same training (`sweep.trainer`, eight lanes); trials are asked for eight at a
time, the sampler's seed is all that differs. The score is the held-out mean squared error of the
best trial so far: by how much one sampler is ahead of the other, seed by seed.
"""

import argparse
import json
import math
import pathlib

import optax
import optuna

from benchmarks import _machine
from bptt_jax import cells, estimators, models, sweep, tasks, train

RESULTS = pathlib.Path(__file__).parent / "results" / "search.json"
LANES, TRIALS, STEPS, SEEDS = 8, 64, 600, 5
SAMPLERS = dict(
    random=optuna.samplers.RandomSampler,
    tpe=lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
)


def scores_of(steps: int):
    task = tasks.adding(batch=32, T=20)
    model = models.features((cells.gru(2, 16),), 1, 16)
    exact = estimators.exact(model, task.objective)

    def optimizer(lr, clip, momentum):
        return optax.chain(
            train.clip_by_global_norm(clip), optax.sgd(lr, momentum=momentum)
        )

    one = sweep.training(task, model, exact, optimizer, held_out_batches=8)
    return sweep.trainer(one, steps=steps, lanes=LANES)


def asked(trial) -> dict[str, float]:
    return dict(
        lr=trial.suggest_float("lr", 1e-4, 3.0, log=True),
        clip=trial.suggest_float("clip", 1e-2, 1e2, log=True),
        momentum=trial.suggest_float("momentum", 0.0, 0.99),
    )


def best_so_far(sampler, scores, trials: int) -> list[float]:
    """After each eight trials."""
    study, best = optuna.create_study(sampler=sampler), []
    for _ in range(trials // LANES):
        each = [study.ask() for _ in range(LANES)]
        for trial, score in zip(each, scores([asked(t) for t in each]), strict=True):
            if math.isnan(score):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, score)
        found = [t.value for t in study.trials if t.value is not None]
        best.append(round(min(found, default=math.inf), 6))
    return best


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    parser.add_argument("--quick", action="store_true", help="one seed, few trials")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials, steps, seeds = (16, 20, 1) if args.quick else (TRIALS, STEPS, SEEDS)
    scores = scores_of(steps)
    found = {
        name: [best_so_far(make(seed=seed), scores, trials) for seed in range(seeds)]
        for name, make in SAMPLERS.items()
    }
    ends = {name: [each[-1] for each in of] for name, of in found.items()}
    ahead = sum(a < b for a, b in zip(ends["tpe"], ends["random"], strict=True))
    print(
        f"best of {trials} trials, seed by seed: {ends}; TPE ahead in {ahead} of {seeds}"
    )
    if not args.quick:
        what = dict(trials=trials, steps=steps, lanes=LANES, best_so_far=found,
                    tpe_ahead=ahead, optuna=optuna.__version__)  # fmt: skip
        RESULTS.write_text(json.dumps(_machine.describe("cpu") | what, indent=1) + "\n")


if __name__ == "__main__":
    main()
