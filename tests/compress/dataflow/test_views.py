"""Axes of parameters are followed through every change of layout."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.dataflow import views


def through(fn: Any, shape: tuple[int, ...]) -> views.View:
  """Return the view of a parameter behind a function."""
  x = jnp.zeros(shape)
  view = views.of('w', x)
  for eqn in jax.make_jaxpr(fn)(x).jaxpr.eqns:
    assert eqn.primitive.name in views.LAYOUT
    view = views.through(eqn, view)
  return view


@pytest.mark.parametrize(
  ('fn', 'shape', 'axes'),
  [
    (lambda w: w.T, (2, 3), ((1,), (0,))),
    (lambda w: w.reshape(6), (2, 3), ((0, 1),)),
    (lambda w: w.reshape(2, 3, 4), (2, 12), ((0,), (1,), (1,))),
    (lambda w: w.reshape(4, 3), (2, 6), ((0, 1), (0, 1))),
    (lambda w: w[None], (2, 3), ((), (0,), (1,))),
    (lambda w: w.reshape(1, 1, 3), (3,), ((), (), (0,))),
    (lambda w: jnp.squeeze(w, 1), (2, 1, 3), ((0,), (2,))),
    (lambda w: jnp.broadcast_to(w, (5, 2, 3)), (2, 3), ((), (0,), (1,))),
    (lambda w: w.astype(jnp.bfloat16)[::-1], (2, 3), ((0,), (1,))),
    (lambda w: w.transpose(2, 0, 1).reshape(4, 6), (2, 3, 4), ((2,), (0, 1))),
  ],
)
def test_axes_are_followed(fn: Any, shape: Any, axes: Any) -> None:
  assert through(fn, shape).axes == axes


def test_parts_and_copies_are_marked() -> None:
  assert through(lambda w: w.T, (2, 3)).whole
  assert not through(lambda w: w[:1], (2, 3)).whole
  assert not through(lambda w: w[::-1], (2, 3)).whole
  assert not through(lambda w: w[None], (2, 3)).spread
  assert through(lambda w: jnp.broadcast_to(w, (5, 3)), (3,)).spread


@settings(deadline=None)  # jax compiles
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_what_an_axis_runs_along_is_what_changes(
  shape: list[int], data: st.DataObject
) -> None:
  """An index along an axis of the view moves only along its parameter axes."""
  size = math.prod(shape)
  divisors = [n for n in range(1, size + 1) if size % n == 0]
  first = data.draw(st.sampled_from(divisors))
  after = (first, size // first)
  order = data.draw(st.permutations(range(len(shape))))
  fn = lambda w: w.transpose(order).reshape(after)  # noqa: E731
  view = through(fn, tuple(shape))
  index = np.stack(np.unravel_index(np.arange(size), shape)).reshape(
    len(shape), *shape
  )
  moved = np.stack([np.asarray(fn(jnp.asarray(x))) for x in index])
  for axis, along in enumerate(view.axes):
    for parameter in range(len(shape)):
      lines = np.moveaxis(moved[parameter], axis, -1)
      if parameter not in along:
        assert (lines == lines[..., :1]).all()


def test_a_reshape_of_everything_ends() -> None:
  for before, after in itertools.permutations([(6, 4), (8, 3), (2, 12)], 2):
    assert len(through(lambda w, s=after: w.reshape(s), before).axes) == 2
