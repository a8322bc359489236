"""Polynomials at the least depth, ceil(log2(degree + 1)), by Estrin's scheme, every term born at the scale of its sum.

Step 0 makes the leaves c[2i] + c[2i+1] x; step j pairs neighbours, low + high * x**(2**j). All products of a step
are independent: on an additive scheme they share one round. A leaf's constant may be encoded at any scale, so each
leaf is encoded such that after all the products above it, it lands exactly on the scale asked for; no level is spent
on adjusting scales (the idea of Lattigo's polynomial evaluator: Bossuat et al., EUROCRYPT 2021, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from hepipe.circuits.functions import Approximation
from hepipe.errors import BudgetExhausted
from hepipe.schemes.base import CipherTensor, Evaluator


@dataclass
class _Node:
    """A block of coefficients: its step in the tree, the scale it must be born at, and its value once it has one."""

    coefficients: tuple[float, ...]
    step: int
    log_scale: float
    value: CipherTensor | None = None
    low: _Node | None = None
    high: _Node | None = None


def evaluate(ev: Evaluator, x: CipherTensor, polynomial: Approximation) -> CipherTensor:
    """The polynomial of x, every feature alike, for an x already divided by the domain. Price depth / depth.

    Reveals nothing but the result. On an additive scheme ``ev`` must be Interactive. BudgetExhausted if x has fewer
    levels than the depth.
    """
    if x.level < polynomial.depth:
        raise BudgetExhausted(
            f"a polynomial of degree {polynomial.degree} needs {polynomial.depth} levels, {x.level} left: "
            f"plan with depth >= {ev.parameters.depth + polynomial.depth - x.level}"
        )
    scales = _power_scales(ev, x, polynomial.depth)
    root = _Node(polynomial.coefficients, polynomial.depth - 1, _final_scale(ev, x, polynomial))
    nodes = _tree(ev, root, x.level, scales)
    power = x
    for step in range(polynomial.depth):
        power = _step(ev, [node for node in nodes if node.step == step], x, power, step, step + 1 < polynomial.depth)
    assert root.value is not None
    return root.value


def _power_scales(ev: Evaluator, x: CipherTensor, depth: int) -> list[float]:
    """log_scale of x**(2**j), each the square of the one before."""
    scales = [x.log_scale]
    for step in range(depth - 1):
        scales.append(2 * scales[-1] - ev.parameters.rescale_bits(x.level - step))
    return scales


def _final_scale(ev: Evaluator, x: CipherTensor, polynomial: Approximation) -> float:
    """A levelled scheme returns to its own scale; an additive one grows by a factor of x's a degree.

    An even degree counts as the next odd one: its top coefficient is a leaf, c + 0 x, like all others.
    """
    if ev.parameters.rescale_bits(x.level):
        return ev.parameters.log_scale
    return (polynomial.degree | 1) * x.log_scale + ev.parameters.plain_bits(x.level)


def _tree(ev: Evaluator, node: _Node, level: int, scales: list[float]) -> list[_Node]:
    """The node and all below it, each with the scale that what is above it asks for."""
    half = 1 << node.step
    low, high = _trimmed(node.coefficients[:half]), node.coefficients[half:]
    if node.step == 0:
        return [node]
    if not high:  # no term of this size: the block below stands for it, one step earlier
        node.low = _Node(node.coefficients, node.step - 1, node.log_scale)
        return [node, *_tree(ev, node.low, level, scales)]
    # The product at this step is made at level - step and divided by that level's prime.
    above = node.log_scale - scales[node.step] + ev.parameters.rescale_bits(level - node.step)
    node.high = _Node(high, node.step - 1, above)
    node.low = _Node(low, node.step - 1, node.log_scale) if low else None
    below = [child for child in (node.low, node.high) if child]
    return [node, *(descendant for child in below for descendant in _tree(ev, child, level, scales))]


def _step(
    ev: Evaluator, nodes: list[_Node], x: CipherTensor, power: CipherTensor, step: int, more: bool
) -> CipherTensor:
    """Give the nodes of one step their values; return the next power, made in the same round."""
    if step == 0:
        for node in nodes:
            node.value = _leaf(ev, x, node)
        return ev.mul(x, x) if more else x
    parents = [node for node in nodes if node.high]
    pairs = [(node.high.value, power) for node in parents if node.high and node.high.value]
    products = ev.mul_pairs([*pairs, (power, power)] if more else pairs)
    for node, product in zip(parents, products, strict=False):
        node.value = ev.add(product, node.low.value) if node.low and node.low.value else product
    for node in nodes:
        if not node.high and node.low:
            node.value = node.low.value
    return products[-1] if more else power


def _leaf(ev: Evaluator, x: CipherTensor, node: _Node) -> CipherTensor:
    constant, slope = (*node.coefficients, 0.0)[:2]
    term = ev.mul_plain(x, slope, log_scale=node.log_scale)
    return ev.add(term, constant) if constant else term


def _trimmed(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    """Without the zeros at the top."""
    while coefficients and coefficients[-1] == 0:
        coefficients = coefficients[:-1]
    return coefficients
