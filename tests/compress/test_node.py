"""What all nodes share: a structure of their own, and 16-bit floats."""

import dataclasses
import importlib
import inspect
import pkgutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from compress import recipe, tree
from compress.method import Ctx
from compress.node import CLASS, Narrowed

DRAWN = np.random.default_rng(0).normal(size=(8, 6))
TEXTS = (
  'binary.weights()',
  'lc(quantize.uniform(4))',
  'lowrank.svd(2)',
  'prune.n_m(2, 4)',
  'prune.weights(0.5, scope="global") >> quantize.uniform(12)',
  'prune.variational(1.0)',
  'quantize.half("float16")',
  'quantize.lsq(3, per=4)',
  'quantize.uniform(4, symmetric=False)',
  'share.hashed(0.5)',
  'share.kmeans(3)',
  'structured.circulant(2)',
)


@pytest.mark.parametrize(
  'dtype', ['bfloat16', pytest.param('float16', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('text', TEXTS)
def test_16_bits_are_compressed_as_the_same_numbers_in_32(
  text: str, dtype: str
) -> None:
  method, ctx = recipe.parse(text), Ctx(9, 9, jax.random.key(0))
  w = jnp.asarray(DRAWN, dtype)
  narrow, wide = (
    method.update(method.init({'b': w[0], 'w': x}, ctx), ctx)
    for x in (w, w.astype(jnp.float32))
  )
  want = tree.decode(wide)['w'].astype(dtype)
  assert tree.find(tree.Compressed, narrow)
  changes = not text.startswith(('prune.variational', 'quantize.half'))
  assert changes == bool(np.any(np.asarray(want != w)))
  for params in (narrow, tree.freeze(narrow)):
    found = tree.decode(params)
    assert found['b'].dtype == found['w'].dtype == dtype
    np.testing.assert_array_equal(found['w'], want)
  grads = jax.grad(
    lambda x: jnp.sum(
      tree.decode_training(tree.merge(x, tree.split(narrow)[1]), ctx.key)['w']
    ).astype(jnp.float32)
  )(tree.split(narrow)[0])
  slopes = [np.asarray(x, np.float32) for x in jax.tree.leaves(grads['w'])]
  assert all(np.all(np.isfinite(x)) for x in slopes)
  assert any(np.any(x != 0) for x in slopes)


def test_narrowed_weights_do_what_is_inside() -> None:
  w = jnp.asarray(DRAWN, jnp.bfloat16)
  node = recipe.parse('quantize.uniform(4)').init({'w': w}, Ctx())['w']
  assert isinstance(node, Narrowed)
  dense, mask = np.asarray(tree.decode(node), float), DRAWN > 0
  stored = tree.freeze(node)
  masked = tree.decode(stored.apply_mask(jnp.asarray(mask)))
  np.testing.assert_array_equal(masked, np.where(mask, dense, 0))
  doubled = tree.decode(stored.scale_channels(jnp.full(6, 2.0)))
  np.testing.assert_array_equal(doubled, 2 * dense)
  keep = jnp.array([0, 2, 3, 4, 6, 7, 8, 9])
  wide = tree.decode(stored.scatter(keep, 0, 10))
  assert wide.shape == (10, 6)
  np.testing.assert_array_equal(wide[keep], dense)
  assert not np.any(np.asarray(wide)[[1, 5]])


def test_too_large_for_16_bits_is_the_largest() -> None:
  node = Narrowed(jnp.array([[1e6, -1e6], [2.0, 0.0]]), 'float16')
  want = [[65504.0, -65504.0], [2.0, 0.0]]
  np.testing.assert_array_equal(tree.decode(node), np.float16(want))


def classes(kind: type = tree.Compressed) -> list[type]:
  """Return all classes of nodes below one, of every module."""
  below = kind.__subclasses__()
  return below + [x for one in below for x in classes(one)]


def test_structures_of_different_classes_differ() -> None:
  for module in pkgutil.walk_packages(compress.__path__, 'compress.'):
    importlib.import_module(module.name)
  found: dict[Any, list[type]] = {}
  for kind in classes():
    if dataclasses.is_dataclass(kind) and not inspect.isabstract(kind):
      fields = [f for f in dataclasses.fields(kind) if f.name != CLASS]
      node = kind(**{f.name: 1 for f in fields})
      found.setdefault(jax.tree.structure(node), []).append(kind)
      assert repr(node).count('class') == 0
  same = [x for x in found if sum(x == y for y in found) > 1]
  assert len(found) > 30 and not same
