"""Methods see kernels as Flax writes them, and give back what they got."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compress
from compress import tree
from compress.dataflow import arranged
from tests import frameworks
from tests.runs import assert_same_bits


@pytest.mark.parametrize('name', frameworks.MODELS)
def test_arranging_changes_no_bit(name: str) -> None:
  model = frameworks.MODELS[name]()
  sites = compress.sites(model.apply, model.params, *model.inputs)
  like = arranged.arrange(model.params, sites)
  assert_same_bits(tree.decode(like), model.params)
  seen = arranged.seen(like)
  for path, x in tree.paths(seen).items():
    assert not tree.is_node(x)
    site = sites[path]
    if site.kind in ('conv', 'dot'):
      assert x.shape == site.shape
    elif not site.is_weight:
      assert x.ndim <= 1
  assert_same_bits(tree.decode(arranged.restored(seen, like)), model.params)
  assert_same_bits(arranged.seen_like(model.params, like), seen)


def test_kernels_of_flax_are_left_as_they_are() -> None:
  model = frameworks.MODELS['Linen CNN']()
  sites = compress.sites(model.apply, model.params, *model.inputs)
  found = tree.paths(arranged.arrange(model.params, sites))
  assert not any(tree.is_node(x) for x in found.values())


def test_a_weight_seen_as_a_matrix_gives_the_same_product() -> None:
  model = frameworks.MODELS['Equinox MLP']()
  sites = compress.sites(model.apply, model.params, *model.inputs)
  like = arranged.arrange(model.params, sites)
  kernel = tree.paths(arranged.seen(like))['layers/0/weight']
  original = tree.paths(model.params)['layers/0/weight']
  x = jnp.linspace(-1.0, 1.0, 30)
  np.testing.assert_allclose(x @ kernel, original @ x, atol=1e-6)


def test_frozen_arrays_have_the_layout_of_the_network() -> None:
  w = jnp.arange(6.0).reshape(2, 3)
  node = arranged.Arranged(w.T, (2, 3), (1, 0))
  np.testing.assert_array_equal(node.freeze(), w)
  np.testing.assert_array_equal(node.seen(w), w.T)
  inside = compress.quantize.uniform(8).init({'w': w.T}, compress.Ctx())['w']
  wrapped = arranged.Arranged(inside, (2, 3), (1, 0))
  assert tree.is_node(compress.freeze({'w': wrapped})['w'])
  assert tree.decode({'w': wrapped})['w'].shape == (2, 3)


def test_compressed_weights_of_another_layout_are_refused() -> None:
  model = frameworks.MODELS['Equinox MLP']()
  sites = compress.sites(model.apply, model.params, *model.inputs)
  nodes = compress.quantize.uniform(8).init(model.params, compress.Ctx())
  with pytest.raises(ValueError, match='compress.init at .*weight.* Decode it'):
    arranged.arrange(nodes, sites)


def test_init_may_follow_init() -> None:
  model, probe = frameworks.probed('Equinox MLP')
  pruned = compress.init(compress.prune.weights(0.5), model.params, probe)
  both = compress.init(compress.quantize.uniform(8), pruned, probe)
  for path, x in tree.paths(compress.decode(both)).items():
    if probe.sites[path].is_weight:
      assert int((x == 0).sum()) >= round(0.5 * x.size)
  assert jax.tree.structure(compress.decode(both)) == jax.tree.structure(
    model.params
  )
