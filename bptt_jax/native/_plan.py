"""What a step does to one row, as loops over its features and products with weights.

A row is what a step knows of one example. Every result is pulled: for a range of its
features, `_Planner.at` follows the equations back to where in memory the operands are. The
place in the batch is carried along as `Row(axis)`, so an equation that reads another
example is met with an index that it has no rule for, and the program is `Unsupported`:
nothing is assumed of a step, it is read off its program.

Where a range crosses the border between two operands (gates side by side) it is cut
there (`_views`). So four gates of a row of 4H come out as four ranges of H, which one loop
computes side by side.
"""

import itertools
import math
from typing import Any

import numpy as np

from bptt_jax.native._phases import phases
from bptt_jax.native._program import (
    Constant,
    Counts,
    Equation,
    Program,
    Unsupported,
    Var,
)
from bptt_jax.native._stages import Buffer, Draft, Outer, Plan, Product, Weight
from bptt_jax.native._views import VIEWS, At, Crossed, Row, Span, linear

MOST_RANGES = 64  # of one result: more would be a program as long as a row
LINEAR = frozenset(
    "add add_any sub neg mul div dot_general transpose reshape broadcast_in_dim concatenate "
    "slice split squeeze expand_dims reduce_sum convert_element_type pad".split()
)
SCALED = dict(
    mul=(0, 1), dot_general=(0, 1), div=(0,)
)  # by what is no sum; which operand is

ELEMENTWISE = frozenset(
    "add sub mul div neg max min abs sign sqrt rsqrt square one_minus_square integer_pow "
    "tanh logistic exp "
    "exp2 log log1p expm1 floor ceil erf cbrt eq ne lt le gt ge and or not xor "
    "select_n convert_element_type is_finite clamp add_any".split()
)


def plan(program: Program, counts: Counts, batch: tuple[int, ...]) -> Plan:
    """The plan of a step.

    Args:
      program: of `(params, carry, lags, x) -> (carry, y, sums)`.
      counts: of its inputs and results.
      batch: axes of examples of the carry.

    Raises:
      Unsupported: it cannot be computed row by row, or has an operation that is not known.
    """
    return _Planner(program, counts, tuple(batch)).plan()


class _Planner:
    def __init__(self, program: Program, counts: Counts, batch: tuple[int, ...]):
        self.program, self.counts, self.batch = program, counts, batch
        self.b = len(batch)
        self.draft = Draft()
        self.memo: dict = {}
        self.places: dict[Any, Buffer] = {}
        self.params: list = []
        self.weights: list[Weight] = []
        self.along: dict[
            Any, list[int]
        ] = {}  # axes of rows where they are not the first
        self.sums: dict[Any, Buffer] = {}
        self.after: list[Equation] = []
        self.of_sums: set = set()
        self.made: dict = {}  # which equation made a variable, and as which result
        for eqn in program.equations:
            self.made |= {v: (eqn, i) for i, v in enumerate(eqn.results)}
        params, carry, lags, xs = counts.of_inputs(program.inputs)
        self.given = set(params)
        self.of_params = set(params)
        for eqn in program.equations:
            if all(isinstance(v, Constant) or v in self.of_params for v in eqn.inputs):
                self.of_params.update(eqn.results)
        for i, v in enumerate(carry):
            self.places[v] = Buffer("carry", i, self.features(v), v.dtype)
            if v.shape[: self.b] != self.batch:
                raise Unsupported(
                    f"a leaf of the carry is {list(v.shape)}, without the axes of "
                    f"examples {list(self.batch)}"
                )
        for i, v in enumerate(lags):
            self.places[v] = Buffer("lag", i, self.features(v), v.dtype)
        self.rows = [v.shape[: self.b] == self.batch for v in xs]
        for i, (v, row) in enumerate(zip(xs, self.rows, strict=True)):
            kind = "x" if row else "shared"
            size = self.features(v) if row else math.prod(v.shape)
            self.places[v] = Buffer(kind, i, size, v.dtype)

    def features(self, v) -> int:
        return math.prod(v.shape[self.b :])

    def plan(self) -> Plan:
        after, ys, sums = self.counts.of_results(self.program.results)
        self.outputs = {v: i for i, v in reversed(list(enumerate(ys)))}
        self.stored: set = set()
        for eqn in self.program.equations:
            self.equation(eqn)
        stores: list = []
        for v in dict.fromkeys(sums):
            if not (isinstance(v, Constant) or v in self.of_sums | self.of_params):
                stores += self.total(v, v)  # there is one row
        for kind, each in (("next", after), ("y", ys)):
            for i, v in enumerate(each):
                if v.shape[: self.b] != self.batch:
                    raise Unsupported(
                        f"a result of a step is {list(v.shape)}, without the axes of "
                        f"examples {list(self.batch)}"
                    )
                buffer = Buffer(kind, i, self.features(v), v.dtype)
                if buffer not in self.stored:
                    stores += self.store(v, buffer)
        split, several = phases(self.draft, stores)
        return Plan(
            self.draft.nodes, *split, self.weights, self.params,
            [e for e in self.program.equations if e.results[0] in self.of_params],
            self.after, self.sums, self.draft.scratch, several, self.rows,
        )  # fmt: skip

    def equation(self, eqn: Equation) -> None:
        """What is no expression of a row: products, and sums over rows."""
        (result, *_), name = eqn.results, eqn.name
        if result in self.of_params:
            return
        if any(v in self.of_sums for v in eqn.inputs if not isinstance(v, Constant)):
            self.of_a_sum(eqn)
        elif name == "dot_general":
            weights = [
                isinstance(v, Constant) or v in self.of_params for v in eqn.inputs
            ]
            if any(weights):
                self.product(eqn, swapped=weights[0])
            else:
                self.outer(eqn)
        elif name == "reduce_sum":
            self.reduction(eqn)

    # ---- axes: those of one entry say nothing

    def axes_of_rows(self, v) -> list[int]:
        """The axes of a value that would be those of examples; whether they are shows where
        its numbers come from.
        """
        if v in self.along:
            return self.along[v]
        examples = [n for n in self.batch if n != 1]
        wide = [i for i, n in enumerate(v.shape) if n != 1][: len(examples)]
        if [v.shape[i] for i in wide] != examples:
            raise Unsupported(f"a value {list(v.shape)} without the axes of examples")
        return wide

    def axes_of_features(self, v) -> list[int]:
        rows = self.axes_of_rows(v)
        return [i for i, n in enumerate(v.shape) if n != 1 and i not in rows]

    def index(self, v, features: dict) -> tuple:
        """Of each row, and of features as they are given by their axes."""
        places = [Row(i) for i, n in enumerate(self.batch) if n != 1]
        of_rows = dict(zip(self.axes_of_rows(v), places, strict=True))
        return tuple((of_rows | features).get(i, At(0)) for i in range(len(v.shape)))

    # ---- sums over rows

    def of_a_sum(self, eqn: Equation) -> None:
        """Linear, it can be computed when all rows and steps are summed."""
        summed = [
            i for i, v in enumerate(eqn.inputs)
            if not isinstance(v, Constant) and v in self.of_sums
        ]  # fmt: skip
        alone = (
            eqn.name in SCALED and len(summed) == 1 and summed[0] in SCALED[eqn.name]
        )
        others = [v for i, v in enumerate(eqn.inputs) if i not in summed]
        known = all(isinstance(v, Constant) or v in self.of_params for v in others)
        linear = eqn.name in LINEAR and (alone or all(map(self.is_zero, others)))
        if not (known and linear):
            raise Unsupported(f"{eqn.name} of a sum over examples")
        self.after.append(eqn)
        self.of_sums.update(eqn.results)

    def is_zero(self, v) -> bool:
        """Whether a value is zero whatever the weights are."""
        if isinstance(v, Constant):
            return not np.any(np.asarray(v.value))
        if v not in self.made:
            return False
        eqn, _ = self.made[v]
        return eqn.name in LINEAR and all(map(self.is_zero, eqn.inputs))

    def new_sum(self, v, size: int, dtype) -> Buffer:
        if dtype not in (np.float32, np.float64):
            raise Unsupported(f"a sum over examples of {dtype}")
        self.sums[v] = Buffer("sum", len(self.sums), size, dtype)
        self.of_sums.add(v)
        return self.sums[v]

    def total(self, v, result) -> list:
        """The stores of `result`, v summed over rows."""
        size = math.prod(v.shape[i] for i in self.axes_of_features(v))
        if v is result and self.axes_of_rows(v):
            raise Unsupported("a gradient of each example by itself")
        stores = self.store(v, Buffer("sum", len(self.sums), size, v.dtype))
        self.new_sum(result, size, v.dtype)
        return stores

    def reduction(self, eqn: Equation) -> None:
        """A sum over rows; over features as well, when all rows and steps are summed."""
        (v,), (result,) = eqn.inputs, eqn.results
        reduced = {i for i in eqn.params["axes"] if v.shape[i] != 1}
        if not reduced:
            return  # of one number, a view
        rows = set(self.axes_of_rows(v))
        if not rows or not rows <= reduced:
            raise Unsupported("the operation reduce_sum over features")
        if reduced == rows:
            self.draft.loops(self.total(v, result))
            return
        summed = Var([1 if i in rows else n for i, n in enumerate(v.shape)], v.dtype)
        self.draft.loops(self.total(v, summed))
        self.after.append(eqn._replace(inputs=[summed]))
        self.of_sums.add(result)

    def outer(self, eqn: Equation) -> None:
        contracted, batched = eqn.params["dimension_numbers"]
        a, d = eqn.inputs
        (result,) = eqn.results
        for v, axes in zip((a, d), contracted, strict=True):
            wide = [i for i in axes if v.shape[i] != 1]
            if [v.shape[i] for i in wide] != [n for n in self.batch if n != 1]:
                raise Unsupported("a product of two values of a step")
            self.along[v] = wide
        if any(a.shape[i] != 1 for i in batched[0]):
            raise Unsupported("a product of many matrices")
        if not a.dtype == d.dtype == result.dtype:
            raise Unsupported(f"a product of {a.dtype} and {d.dtype}")
        A, N = (math.prod(v.shape[i] for i in self.axes_of_features(v)) for v in (a, d))
        places = self.over_steps(a, A), A, self.over_steps(d, N), N
        self.draft.stages.append(Outer(*places, self.new_sum(result, A * N, a.dtype)))

    def over_steps(self, v, size: int) -> Buffer:
        """Scratch with all features of a row of v."""
        place, offset = self.contiguous(v, size)
        return self.draft.copied(place, offset, size)

    # ---- what is stored

    def full(self, v):
        """All indices of the features of a row, but for the last axis, as a range."""
        *lead, last = self.axes_of_features(v) or [None]
        sizes = [v.shape[i] for i in lead]
        if math.prod(sizes) > MOST_RANGES:
            raise Unsupported(f"rows of {list(v.shape)} have too many parts")
        for at in itertools.product(*map(range, sizes)):
            yield dict(zip(lead, map(At, at), strict=True)), last

    def store(self, v, buffer: Buffer) -> list:
        """`(n, buffer, offset, node)` for each range of a value."""
        stores = []
        for n, (lead, last) in enumerate(self.full(v)):
            size = 1 if last is None else v.shape[last]
            pending = [(0, size)]
            while pending:
                o, m = pending.pop()
                end = {} if last is None else {last: Span(o, m)}
                try:
                    node = self.at(v, self.index(v, lead | end))
                except Crossed as crossed:
                    pending += [
                        (o + crossed.after, m - crossed.after),
                        (o, crossed.after),
                    ]
                    if len(pending) > MOST_RANGES:
                        raise Unsupported("a row has too many parts") from None
                else:
                    stores.append((m, buffer, n * size + o, node))
        if len(stores) > MOST_RANGES:
            raise Unsupported("a row has too many parts")
        return stores

    # ---- products

    def product(self, eqn: Equation, swapped: bool) -> None:
        (of_x, of_w), (batch_x, _) = eqn.params["dimension_numbers"]
        x, w = eqn.inputs
        if swapped:
            (x, of_x), (w, of_w) = (w, of_w), (x, of_x)
        if batch_x:
            raise Unsupported("a product of many matrices")
        out = eqn.results[0]
        if (
            x.dtype != w.dtype
            or out.dtype != x.dtype
            or x.dtype not in (np.float32, np.float64)
        ):
            raise Unsupported(f"a product of {x.dtype} and {w.dtype}")
        wide = [i for i in range(len(x.shape)) if x.shape[i] != 1 and i not in of_x]
        if wide != self.axes_of_rows(x):
            raise Unsupported("a product that does not sum over all features of a row")
        in_order = sorted(range(len(of_x)), key=lambda i: of_x[i])
        summed = [of_w[i] for i in in_order]
        free = [i for i in range(len(w.shape)) if i not in summed]
        A, N = (math.prod(w.shape[i] for i in axes) for axes in (summed, free))
        if swapped and wide and N > 1:
            raise Unsupported("a product whose result has the examples last")
        self.weights.append(Weight(w, (*summed, *free), A, N))
        source, offset = self.contiguous(x, A)
        place = self.draft.temporary(N, out.dtype)
        self.places[out] = place
        self.draft.stages.append(
            Product(source, offset, A, N, len(self.weights) - 1, place)
        )

    def contiguous(self, x, A: int) -> tuple[Buffer, int]:
        """Where all features of a row of x are, one after another."""
        place = self.places.get(x)
        if place is not None and place.kind not in ("shared", "param"):
            return place, 0
        features = self.axes_of_features(x)
        if len(features) == 1:
            try:
                node = self.draft.nodes[
                    self.at(x, self.index(x, {features[0]: Span(0, A)}))
                ]
                if node.name == "load" and node.data[0].kind not in ("shared", "param"):
                    return node.data
            except Crossed:
                pass
        if x in self.outputs:
            place = Buffer("y", self.outputs[x], A, x.dtype)
            self.stored.add(place)
        else:
            place = self.draft.temporary(A, x.dtype)
        self.draft.loops(self.store(x, place))
        self.places[x] = place
        self.memo.clear()  # what was an expression is now in memory
        return place, 0

    # ---- expressions

    def at(self, v, index) -> int:
        """The expression of a value at an index, one entry for each of its axes."""
        index = tuple(
            At(0) if d == 1 else i for i, d in zip(index, v.shape, strict=True)
        )
        key = (id(v), index)
        if key not in self.memo:
            self.memo[key] = self.expression(v, index)
        return self.memo[key]

    def expression(self, v, index) -> int:
        if isinstance(v, Constant):
            return self.constant(v, index)
        if v in self.places:
            place = self.places[v]
            return self.read(place, v, index, place.kind not in ("shared", "param"))
        if v in self.given:
            return self.param(v, index)
        eqn, which = self.made[v]
        rule = VIEWS.get(eqn.name)
        if rule is not None:
            operand, index = rule(eqn, which, index)
            return self.at(operand, index)
        if v in self.of_params:
            return self.param(v, index)
        if eqn.name not in ELEMENTWISE:
            raise Unsupported(f"the operation {eqn.name}")
        operands = [self.at(a, index if a.shape else ()) for a in eqn.inputs]
        return self.draft.node(eqn.name, v.dtype, _data(eqn), operands)

    def constant(self, v, index) -> int:
        value = np.asarray(v.value)
        if not value.ndim:
            return self.draft.node(
                "constant", v.dtype, (value.astype(v.dtype).tobytes(),)
            )
        return self.param(v, index)

    def param(self, v, index) -> int:
        if v not in self.params:
            self.params.append(v)
        place = Buffer("param", self.params.index(v), math.prod(v.shape), v.dtype)
        return self.read(place, v, index, False)

    def read(self, place: Buffer, v, index, row: bool) -> int:
        rows = self.axes_of_rows(v) if row else []
        places = [Row(i) for i, n in enumerate(self.batch) if n != 1]
        if row and [index[i] for i in rows] != places:
            raise Unsupported("examples are not kept apart")
        rest = [i for i, n in enumerate(v.shape) if n != 1 and i not in rows]
        index, shape = [index[i] for i in rest], [v.shape[i] for i in rest]
        if any(isinstance(entry, Row) for entry in index):
            raise Unsupported("an example is read as a feature")
        offset, span = linear(index, shape)
        name = "one" if span is None else "load"
        return self.draft.node(name, v.dtype, (place, offset))


def _data(eqn: Equation) -> tuple:
    if eqn.name == "integer_pow":
        return (int(eqn.params["y"]),)
    if eqn.params.get("accuracy"):
        raise Unsupported(f"{eqn.name} of a given accuracy")
    return ()
