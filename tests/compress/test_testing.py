"""The check of authors accepts right methods and says what wrong ones lack."""

import warnings
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest
from flax import struct

import compress
from compress import recipe, testing, tree
from compress.quantize.affine import straight_through
from compress.unchanged import UnchangedWarning
from tests.samples import SAMPLES


@pytest.mark.parametrize(
  'text',
  [
    'prune.weights(0.5)',
    'quantize.lsq(4, 4)',
    pytest.param('lowrank.svd(2) >> quantize.int8()', marks=pytest.mark.slow),
    pytest.param('prune.l0(1.0, sparsity=0.5)', marks=pytest.mark.slow),
    pytest.param('distill.kd(4.0)', marks=pytest.mark.slow),
    pytest.param('structured.circulant(4)', marks=pytest.mark.slow),
  ],
)
def test_methods_of_the_library_are_accepted(text: str) -> None:
  testing.check(recipe.parse(text))


@pytest.mark.slow
@pytest.mark.parametrize('text', [texts[0] for texts in SAMPLES.values()])
def test_every_method_of_the_table_is_accepted(text: str) -> None:
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', UnchangedWarning)
    try:
      testing.check(recipe.parse(text), 'law')
    except ValueError as e:  # one that does not fit two dense layers says so
      assert not str(e).startswith('law'), e


@struct.dataclass
class Grid(compress.Compressed):
  """A weight in steps of a quarter."""

  trainable: ClassVar[tuple[str, ...]] = ('w',)
  inner: ClassVar[tuple[str, ...]] = ('w',)

  w: Any

  def decode(self) -> jax.Array:
    """Return the rounded weight."""
    return straight_through(jnp.round(4 * self.w) / 4, self.w)


@struct.dataclass
class Held(Grid):
  """The same, without `trainable`."""

  trainable: ClassVar[tuple[str, ...]] = ()


@struct.dataclass
class Flat(Grid):
  """The same, without a gradient."""

  def decode(self) -> jax.Array:
    """Return the rounded weight."""
    return jnp.round(4 * self.w) / 4


@struct.dataclass
class Other(Grid):
  """The same, stored as something else."""

  def freeze(self) -> Any:
    """Return another weight."""
    return self.w


@struct.dataclass
class Narrow(Grid):
  """The same in another type."""

  def decode(self) -> jax.Array:
    """Return the rounded weight."""
    return super().decode().astype(jnp.bfloat16)


def wrapped(kind: Any) -> compress.Method:
  """Return a method that puts nodes in the place of weights."""
  return compress.Method(
    lambda params, ctx: tree.map_arrays(lambda path, w: kind(w), params)
  )


def test_a_method_of_an_outsider_is_accepted() -> None:
  testing.check(wrapped(Grid))


@pytest.mark.parametrize(
  ('kind', 'message'),
  [
    (Held, r"Held.w to train, .* Add trainable = \('w',\)"),
    (Flat, 'expected a gradient, got zeros. .* straight_through'),
    (Other, '`freeze` to decode to the same bits'),
    (Narrow, r'expected float32\[.*, got bfloat16'),
  ],
)
def test_wrong_nodes_are_told_what_they_lack(kind: Any, message: str) -> None:
  with pytest.raises(ValueError, match=f'mine at .*{message}'):
    testing.check(wrapped(kind), 'mine')


def test_a_method_that_does_nothing_is_told_so() -> None:
  lazy = compress.Method(lambda params, ctx: tree.map_arrays(_same, params))
  with pytest.raises(ValueError, match='mine: expected a method that changes'):
    testing.check(lazy, 'mine')


def _same(path: str, w: jax.Array) -> jax.Array:
  del path
  return w
