"""Canonical polyadic decomposition of a convolution, by least squares."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from compress import scaling
from compress.lowrank.factors import Separable
from compress.random import draw
from compress.tree import Array

RIDGE = 1e-6  # on the diagonal of the normal equations, which is 1
AXES = 'hwio'


def largest_rank(shape: tuple[int, ...]) -> int:
  """Return a rank at which any kernel of a shape is exact."""
  return math.prod(shape) // max(shape)


@functools.partial(jax.jit, static_argnames=('rank', 'sweeps'))
def polyadic(w: Array, rank: int, sweeps: int = 50) -> Separable:
  r"""Return $w_{hwio} \approx \sum_r a_{hr} b_{wr} c_{ir} d_{or}$.

  Alternating least squares: each factor in turn solves its normal equations
  for the others (Lebedev+ 2015, arXiv 1412.6553, section 3, with the simpler
  of its two solvers).

  Args:
    w: `[h, w, in, out]`.
    rank: Terms of the sum.
    sweeps: How often all factors are solved for.

  Returns:
    The node, in the type of `w`; its factors have equal norms, term by term.
  """
  values, unit = scaling.scaled(w, 4)
  keys = jax.random.split(jax.random.key(0), 4)
  start = [
    draw(jax.random.normal, key, (size, rank), values.dtype)
    for key, size in zip(keys, w.shape, strict=True)
  ]

  def sweep(_: Any, parts: list[Array]) -> list[Array]:
    for axis in range(4):
      parts = _solved(values, parts, axis)
    return parts

  parts = jax.lax.fori_loop(0, sweeps, sweep, start)
  return _node([(x * unit).astype(w.dtype) for x in _balanced(parts)])


def _solved(w: Array, parts: list[Array], axis: int) -> list[Array]:
  """Return the factors with that of one axis solved for, others of norm 1."""
  units = [x * _inverse(jnp.linalg.norm(x, axis=0)) for x in parts]
  others = [i for i in range(4) if i != axis]
  terms = ','.join([AXES, *(f'{AXES[i]}r' for i in others)])
  right = jnp.einsum(f'{terms}->{AXES[axis]}r', w, *(units[i] for i in others))
  gram = jnp.ones((right.shape[1],) * 2, w.dtype)
  for i in others:
    gram *= units[i].T @ units[i]
  gram += RIDGE * jnp.eye(len(gram), dtype=w.dtype)
  units[axis] = jnp.linalg.solve(gram, right.T).T
  return units


def _balanced(parts: list[Array]) -> list[Array]:
  """Return factors whose columns have equal norms."""
  norms = [jnp.linalg.norm(x, axis=0) for x in parts]
  mean = math.prod(norms[1:], start=norms[0]) ** 0.25
  return [x * (mean * _inverse(n)) for x, n in zip(parts, norms, strict=True)]


def _inverse(norms: Array) -> Array:
  """Return 1 / norm, and 0 for columns that are 0."""
  return jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)


def _node(parts: list[Array]) -> Separable:
  rows, columns, inputs, outputs = parts
  return Separable(
    u=inputs[None, None],
    rows=rows[:, None, None],
    columns=columns[None, :, None],
    v=outputs.T[None, None],
  )
