"""Nodes that no file can hold are named before anything trains."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from compress import recipe, tree
from compress.method import Ctx, Method
from tests.samples import SAMPLES
from tsukiji.config import settings
from tsukiji.deploy.tsk import kinds
from tsukiji.experiments import prepare

PARAMS = {'fc': {'kernel': jnp.linspace(-1.0, 1.0, 24).reshape(6, 4)}}


@struct.dataclass
class Foreign(tree.Compressed):
  """A node of somebody else."""

  trainable = inner = ('w',)
  w: Any

  def decode(self) -> jax.Array:
    """Return the weight."""
    return self.w


@struct.dataclass
class Thawed(Foreign):
  """One that nothing is left of in files."""

  def freeze(self) -> Any:
    """Return what is inside."""
    return self.w


@struct.dataclass
class Changed(Foreign):
  """One that becomes another of its kind."""

  def freeze(self) -> Any:
    """Return a node that files do not know either."""
    return Foreign(self.w)


@struct.dataclass
class Known(Foreign):
  """One that says its kind."""

  kind = 'grid'


def foreign() -> Method:
  """Return a method from outside."""
  return Method(
    lambda params, ctx: tree.map_arrays(lambda _, w: Foreign(w), params)
  )


@pytest.mark.parametrize('kind', [Foreign, Changed])
@pytest.mark.parametrize('text', ['', 'quantize.uniform(4)'])
def test_kinds_that_files_cannot_hold_are_named(kind: Any, text: str) -> None:
  params = tree.map_arrays(lambda _, w: kind(w), PARAMS)
  params = recipe.parse(text).init(params, Ctx())
  for x in (params, jax.eval_shape(lambda: params)):
    with pytest.raises(ValueError, match=r'at fc/kernel: .* got Foreign'):
      kinds.expect_known(x)
  kinds.expect_known(tree.map_arrays(lambda _, w: Thawed(w), PARAMS))
  kinds.expect_known(tree.map_arrays(lambda _, w: Known(w), PARAMS))


@pytest.mark.parametrize(
  'text',
  [
    'binary.weights()',
    'lc(prune.weights(0.5))',
    'lowrank.learned_rank(1.0)',
    'lowrank.svd(1) >> quantize.uniform(4)',
    'prune.l0(1.0) >> quantize.uniform(8)',
    'prune.weights(0.5) >> quantize.uniform(4)',
    'quantize.delay(0.5) >> quantize.uniform(4, symmetric=False)',
    *SAMPLES['share.hashed'],
  ],
)
def test_kinds_of_the_library_are_known(text: str) -> None:
  ctx = Ctx(0, 9, jax.random.key(0))
  kinds.expect_known(recipe.parse(text).init(PARAMS, ctx))


def test_experiments_name_them_before_training(tmp_path: pathlib.Path) -> None:
  config = settings.default()
  sizes = {'conv': (4, 8), 'hidden': (16,)}
  config.networks = {'net': settings.network('tsukijinet2021', sizes=sizes)}
  method = f'{__name__}:foreign()'
  config.recipes = {'own': settings.compression(method, 'combined')}
  with pytest.raises(ValueError, match=r'recipes.own on net: .* got Foreign'):
    prepare.prepare(config, tmp_path)
