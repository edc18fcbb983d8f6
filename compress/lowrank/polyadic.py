"""Canonical polyadic decomposition of a convolution, by least squares."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from compress.lowrank.factors import Separable
from compress.tree import Array

RIDGE = 1e-6  # of the mean diagonal of the normal equations
AXES = 'hwio'


def most(shape: tuple[int, ...]) -> int:
  """Return a rank that is always enough."""
  return math.prod(shape) // max(shape)


def polyadic(w: Array, rank: int, sweeps: int = 50) -> Separable:
  r"""Return $w_{hwio} \approx \sum_r a_{hr} b_{wr} c_{ir} d_{or}$.

  Alternating least squares: each factor in turn solves its normal equations
  for the others (Lebedev+ 2015, arXiv 1412.6553, section 3, with the plainer
  of its two solvers).

  Args:
    w: `[h, w, in, out]`.
    rank: Terms of the sum.
    sweeps: How often all factors are solved for.

  Returns:
    The node; its factors are equally large, term by term.
  """
  keys = jax.random.split(jax.random.key(0), 4)
  start = [
    jax.random.normal(key, (size, rank), w.dtype)
    for key, size in zip(keys, w.shape, strict=True)
  ]

  def sweep(_: Any, parts: list[Array]) -> list[Array]:
    for axis in range(4):
      parts = _solved(w, parts, axis)
    return parts

  parts = jax.lax.fori_loop(0, sweeps, sweep, start)
  return _node(_balanced(parts))


def _solved(w: Array, parts: list[Array], axis: int) -> list[Array]:
  """Return the factors with that of one axis solved for, others of norm 1."""
  units = [
    x / jnp.maximum(jnp.linalg.norm(x, axis=0), jnp.finfo(w.dtype).tiny)
    for x in parts
  ]
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
  """Return factors whose columns are equally long."""
  norms = [jnp.linalg.norm(x, axis=0) for x in parts]
  mean = math.prod(norms[1:], start=norms[0]) ** 0.25
  tiny = jnp.finfo(mean.dtype).tiny
  return [
    x * (mean / jnp.maximum(n, tiny)) for x, n in zip(parts, norms, strict=True)
  ]


def _node(parts: list[Array]) -> Separable:
  rows, columns, inputs, outputs = parts
  return Separable(
    u=inputs[None, None],
    rows=rows[:, None, None],
    columns=columns[None, :, None],
    v=outputs.T[None, None],
  )
