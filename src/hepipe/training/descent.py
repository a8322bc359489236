"""Logistic regression by gradient descent on encrypted rows and encrypted weights: one loop for every scheme.

With labels y in {-1, 1} folded into the rows, M_p = y_p (1, x_p), the gradient of the log-loss needs only M:

    w <- (1 - rate * l2) w + rate / rows * M^T sigmoid(-M w)

A polynomial stands for the sigmoid on |z| <= DOMAIN, z = M w. What is encrypted and iterated is v = w / DOMAIN, so that
u = M v = z / DOMAIN and all its powers stay within 1. The polynomial is odd around 1/2: sigmoid(-z) = 1/2 - u s(u**2).
The 1/2 adds a multiple of the sum of the rows, which is formed once; the rest is M^T (u s), whose constants are folded
into plaintext factors that cost no level of the weights. The first step, from v = 0, is linear.

Nesterov's step costs no level either. With the iterate a_k and momentum m_k, v_(k+1) = (1 + m_k) a_(k+1) - m_k a_k; the
loop carries c_k = (1 + m_k) a_(k+1), which the gradient's factor makes directly, and c_(k-1) has levels to spare:

    c_k = (1 + m_k) ((1 - rate l2) v_k + gradient)         v_(k+1) = c_k - m_k / (1 + m_(k-1)) c_(k-1)

(Packed training with a least-squares sigmoid and Nesterov's step: Kim, Song, Kim, Lee and Cheon, BMC Medical Genomics
11(83), 2018. They lose a level to a mask; the turned diagonals need none.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hepipe.circuits import polynomial
from hepipe.circuits.functions import SIGMOID, Approximation
from hepipe.errors import BudgetExhausted, OutOfRange, Unsupported
from hepipe.schemes.base import CipherTensor, Evaluator
from hepipe.training.layout import Layout, Tensors

DOMAIN = 8.0
"""|z| that the polynomial is made for, and so |v| <= 1 stands for weights up to 8."""
DEGREES = (3, 5, 7)


@dataclass(frozen=True)
class State:
    """The descent between two steps; all a checkpoint needs besides the encrypted rows.

    step     steps made
    weights  v = w / DOMAIN, where the next gradient is taken; after the last step, the result
    carrier  (1 + momentum) times the last iterate
    totals   the sum of the rows
    """

    step: int
    weights: CipherTensor
    carrier: CipherTensor
    totals: CipherTensor


@dataclass(frozen=True)
class Descent:
    """What is public of a training: everything but rows, labels and weights.

    rows      how many
    steps     how many
    rate      step size of the mean log-loss; for whitened columns 4 is near Newton's step
    degree    of the sigmoid's polynomial: 3, 5 or 7
    momentum  Nesterov's sequence (FISTA) if True, plain gradient steps if False
    l2        the loss gains l2 / 2 |w|**2, intercept included
    refresh   ask the key holder for a masked refresh where the levels do not suffice for the next step
    reserve   levels that a refresh needs for its mask
    """

    rows: int
    steps: int
    rate: float = 4.0
    degree: int = 3
    momentum: bool = False
    l2: float = 0.0
    refresh: bool = False
    reserve: int = 0

    def __post_init__(self) -> None:
        if self.degree not in DEGREES:
            raise Unsupported(f"a sigmoid of degree {self.degree}: use one of {list(DEGREES)}")
        if self.rows < 1 or self.steps < 1:
            raise OutOfRange(f"{self.steps} steps on {self.rows} rows: at least 1 of each")
        if not (0 < self.rate < math.inf and 0 <= self.rate * self.l2 < 1):
            raise OutOfRange(f"rate {self.rate:g}, l2 {self.l2:g}: the rate must be positive, rate * l2 in [0, 1)")

    @cached_property
    def sigmoid(self) -> Approximation:
        """The polynomial, in u."""
        return SIGMOID.polynomial(self.degree, DOMAIN)

    @cached_property
    def momenta(self) -> tuple[float, ...]:
        """m_k for each step, the last 0, so that the result is an iterate. Beck and Teboulle 2009, (4.2)."""
        if not self.momentum:
            return (0.0,) * self.steps
        t = [1.0]
        while len(t) <= self.steps:
            t.append((1 + math.sqrt(1 + 4 * t[-1] ** 2)) / 2)
        return (*((t[k] - 1) / t[k + 1] for k in range(self.steps - 1)), 0.0)

    def step_levels(self, layout: Layout) -> int:
        """Levels of every step but the first, which takes 1."""
        inner = 0 if self.degree == 3 else 2  # of a polynomial of u**2 of degree 2 or 3
        return 2 + inner + layout.gradient_levels

    def run(self, ev: Evaluator, layout: Layout, data: Tensors, state: State | None = None) -> Iterator[State]:
        """The states after each step, from the start or from ``state``. Deterministic but for refreshes.

        Price: 1 + (steps - 1) * step_levels / the refreshes. Reveals nothing: a refresh shows masked weights, and a
        scheme that multiplies by rounds masked factors. BudgetExhausted where levels end and ``refresh`` is False.
        """
        if state is None:
            state = self._first(ev, layout, data)
            yield state
        while state.step < self.steps:
            state = self._step(ev, layout, data, self._refreshed(ev, layout, state))
            yield state

    def _first(self, ev: Evaluator, layout: Layout, data: Tensors) -> State:
        totals = layout.totals(ev, data)
        weights = _within_one(ev.mul_plain(totals, self._constant(0)))
        return State(1, weights, weights, totals)

    def _refreshed(self, ev: Evaluator, layout: Layout, state: State) -> State:
        """The state with the levels for its next step; one round if it has too few."""
        more = self.refresh and state.step + 1 < self.steps
        need = self.step_levels(layout) + (self.reserve if more else 0)
        if state.weights.level >= need:
            return state
        if not self.refresh:
            raise BudgetExhausted(
                f"step {state.step + 1} needs {need} levels, {state.weights.level} left: plan for {self.steps} steps, "
                "or allow refresh"
            )
        if not self.momenta[state.step]:
            return replace(state, weights=_within_one(ev.refresh(state.weights)))
        width = state.weights.shape[1]
        both = ev.refresh(ev.join([state.weights, state.carrier]))
        weights = _within_one(ev.take(both, range(width)))
        return replace(state, weights=weights, carrier=ev.take(both, range(width, 2 * width)))

    def _step(self, ev: Evaluator, layout: Layout, data: Tensors, state: State) -> State:
        k = state.step
        weights = state.weights
        u = [_within_one(block) for block in layout.scores(ev, data, weights)]
        s, leading = self._slope(ev, u)
        gradient = layout.gradient(ev, data, u, s, -self._factor(k) * leading)
        scale = gradient.log_scale
        kept = ev.mul_plain(weights, (1 + self.momenta[k]) * (1 - self.rate * self.l2), log_scale=scale)
        half = ev.mul_plain(state.totals, self._constant(k), log_scale=scale)
        # An iterate lies between the one before and the weights of its step, so it stays within 1 as they do.
        carrier = ev.add(ev.add(gradient, kept), half).with_bound(np.array([1 + self.momenta[k]]))
        if not self.momenta[k]:
            return State(k + 1, carrier, carrier, state.totals)
        back = ev.mul_plain(state.carrier, self.momenta[k] / (1 + self.momenta[k - 1]), log_scale=scale)
        return State(k + 1, _within_one(ev.sub(carrier, back)), carrier, state.totals)

    def _factor(self, k: int) -> float:
        """What M^T sigmoid(-M w) is multiplied by at step k, for v in place of w."""
        return (1 + self.momenta[k]) * self.rate / (DOMAIN * self.rows)

    def _constant(self, k: int) -> float:
        return self._factor(k) * self.sigmoid.coefficients[0]

    def _slope(self, ev: Evaluator, u: Tensors) -> tuple[list[CipherTensor], float]:
        """s and a number whose product is (sigmoid - 1/2) / u, a polynomial of u**2; of degree 3 no level is spent."""
        squares = [ev.mul(block, block) for block in u]
        odd = self.sigmoid.coefficients[1::2]
        if len(odd) > 2:
            inner = Approximation(odd, 1.0, self.sigmoid.max_error)
            return [polynomial.evaluate(ev, y, inner) for y in squares], 1.0
        return [ev.add(y, odd[0] / odd[1]) for y in squares], odd[1]


def _within_one(x: CipherTensor) -> CipherTensor:
    """x under the bound that the owner checked before training: see training.rehearsal."""
    return x.with_bound(np.ones(1))
