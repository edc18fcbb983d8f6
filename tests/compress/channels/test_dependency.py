"""Channels that go together, on networks whose wiring is known."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import tree
from compress.channels import dependency, filters, sliced
from compress.channels.dependency import Group
from compress.method import Ctx
from compress.unchanged import UnchangedWarning
from tests.nets import SPECS, Own, conv, groups, module, net
from tests.runs import calibrated, run, start
from tsukiji.deploy.passes.shrink import shrink
from tsukiji.models.spec import Act, Branch, Norm

# Of each group: its name, its channels, what makes, carries and takes them.
WANT = {
  'tsukijinet2021': [
    ('conv1', 4, 'conv1', 'norm1', 'conv2'),
    ('conv2', 4, 'conv2', 'norm2', 'dense1*4'),
    ('dense1', 8, 'dense1', '', 'dense2'),
  ],
  'vgg': [
    ('conv1_1', 4, 'conv1_1', 'conv1_1_norm', 'conv1_2'),
    ('conv1_2', 4, 'conv1_2', 'conv1_2_norm', 'dense'),
  ],
  'resnet': [
    (
      'conv0+block1_1_conv2',
      4,
      'block1_1_conv2 conv0',
      'block1_1_conv2_norm conv0_norm',
      'block1_1_conv1 block2_1_conv1 block2_1_skip',
    ),
    (
      'block1_1_conv1',
      4,
      'block1_1_conv1',
      'block1_1_conv1_norm',
      'block1_1_conv2',
    ),
    (
      'block2_1_conv1',
      4,
      'block2_1_conv1',
      'block2_1_conv1_norm',
      'block2_1_conv2',
    ),
    (
      'block2_1_conv2+block2_1_skip',
      4,
      'block2_1_conv2 block2_1_skip',
      'block2_1_conv2_norm block2_1_skip_norm',
      'dense',
    ),
  ],
  'separable': [
    ('wide', 4, 'wide', 'depth norm', 'point'),
    ('point', 6, 'point', '', 'fc'),
  ],
  'concat': [
    ('stem', 4, 'stem', '', 'left right'),
    ('left', 4, 'left', 'norm', 'mix'),
    ('right', 6, 'right', 'norm right_norm', 'mix'),
    ('mix', 4, 'mix', '', 'fc'),
  ],
  'own': [
    ('stem+body', 4, 'body stem', 'norm', 'body hidden*25 side'),
    ('side', 6, 'side', '', 'hidden*25'),
    ('hidden', 8, 'hidden', '', 'head'),
  ],
}


def summary(group: Group) -> tuple[Any, ...]:
  """Return a group as a row of `WANT`."""

  def modules(role: str) -> str:
    found = {}
    for part in group.of(role):
      name, _, _ = part.path.rpartition('/')
      each = part.entries.shape[1]
      found[name] = f'{name}*{each}' if each > 1 else name
    return ' '.join(found.values())

  return (group.name, group.channels, *map(modules, dependency.ROLES))


@functools.cache
def found(name: str) -> tuple[Group, ...]:
  """Return the groups of a spec or of the module that is none."""
  if name != 'own':
    return groups(SPECS[name])
  variables, requested = module(Own())
  return tuple(
    dependency.groups(requested.apply, variables['params'], requested.examples)
  )


@pytest.mark.slow
@pytest.mark.parametrize('name', WANT)
def test_groups_match_the_known_dependencies(name: str) -> None:
  assert [summary(group) for group in found(name)] == WANT[name]


def test_slices_lie_where_flax_puts_channels() -> None:
  left, right = found('concat')[1:3]
  offset = {('norm/bias', 0), ('norm/scale', 0), ('mix/kernel', 2)}
  for group, first in ((left, 0), (right, 4)):
    for part in group.slices:
      start = first if (part.path, part.axis) in offset else 0
      want = start + np.arange(group.channels)
      np.testing.assert_array_equal(part.entries[:, 0], want)
    assert offset <= {(part.path, part.axis) for part in group.slices}
  wide = {part.path: part.axis for part in found('separable')[0].slices}
  assert wide['depth/kernel'] == wide['wide/kernel'] == 3
  assert wide['point/kernel'] == 2
  # A flattened image has the channels innermost.
  takes = found('tsukijinet2021')[1].of('consumes')[0]
  np.testing.assert_array_equal(
    takes.entries, np.arange(4)[:, None] + 4 * np.arange(4)
  )
  # What is concatenated before it is flattened lies behind.
  takes = found('own')[1].of('consumes')[0]
  np.testing.assert_array_equal(
    takes.entries, 4 + np.arange(6)[:, None] + 10 * np.arange(25)
  )


def test_every_slice_is_described() -> None:
  lines = dependency.describe(found('separable'))
  assert len(lines) == sum(len(g.slices) for g in found('separable'))
  assert lines[0].startswith('wide (4 channels): wide/')
  assert {line.rpartition(': ')[2] for line in lines} == {
    'produces the channels',
    'carries each on elementwise',
    'consumes them',
  }


def without(params: Any, group: Group, role: tuple[str, ...], c: int) -> Any:
  """Return arrays with the entries of one channel at 0, by plain indexing."""
  arrays = {path: np.array(x) for path, x in tree.paths(params).items()}
  for part in group.slices:
    if part.role in role:
      np.moveaxis(arrays[part.path], part.axis, 0)[part.entries[c]] = 0
  return tree.map_paths(lambda path, _: jnp.asarray(arrays[path]), params)


@pytest.mark.slow
@pytest.mark.parametrize('name', SPECS)
def test_a_zero_channel_can_be_removed(name: str) -> None:
  spec, requested = SPECS[name], calibrated(SPECS[name]).probe
  params = start(spec)['params']
  assert requested is not None
  for c, group in enumerate(found(name)):
    c %= group.channels
    zero = without(params, group, ('produces', 'carries'), c)
    slopes = tree.paths(requested.grad(zero))
    for part in group.of('consumes'):
      slope = np.moveaxis(np.asarray(slopes[part.path]), part.axis, 0)
      rest = np.delete(slope, part.entries[c], 0)
      assert not slope[part.entries[c]].any()
      assert rest.any()
    np.testing.assert_array_equal(
      requested.apply(
        without(zero, group, ('consumes',), c), *requested.examples
      ),
      requested.apply(zero, *requested.examples),
    )
  # Of the last group, what is left is a network that says the same.
  cut = sliced.cut(params, group, np.arange(group.channels) != c)
  small_spec, small = shrink(spec, {**start(spec), 'params': cut})
  assert small_spec != spec
  want, _ = run(spec, {**start(spec), 'params': zero}, 4)
  np.testing.assert_allclose(run(small_spec, small, 4)[0], want, atol=1e-5)


class Mixed(nn.Module):
  """A stem, something between that is no friend of channels, and a head."""

  kind: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return three logits."""
    y = nn.Conv(4, (3, 3), name='stem')(x)
    if self.kind == 'output':
      return y.mean((1, 2))
    if self.kind == 'layer norm':
      y = nn.LayerNorm(name='norm')(y)
    if self.kind == 'grouped':
      y = nn.Conv(4, (3, 3), feature_group_count=2, name='between')(y)
    if self.kind == 'next to grouped':
      y += nn.Conv(4, (3, 3), feature_group_count=2, name='between')(x)
    if self.kind == 'next to the input':
      y += x
    if self.kind == 'reshape':
      y = y.reshape(*y.shape[:2], -1, 2).mean(2)
    if self.kind == 'gain of a block':
      y = Block(name='block')(y)
    if self.kind == 'gain of places':
      y *= self.param('gain', nn.initializers.ones, (5, 4))
    return nn.Dense(3, name='head')(nn.relu(y).mean((1, -2)[: y.ndim - 2]))


class Block(nn.Module):
  """A module with a parameter of its own behind a layer."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return the block on `[..., 4]`."""
    gain = self.param('gain', nn.initializers.ones, (4,))
    return gain * nn.Dense(4, name='inner')(x)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('kind', 'names'),
  [
    ('nothing', ['stem']),
    ('output', []),
    ('layer norm', []),
    ('grouped', []),
    ('next to grouped', []),
    ('next to the input', []),
    ('reshape', []),
    ('gain of places', []),
  ],
)
def test_channels_that_cannot_be_removed_are_in_no_group(
  kind: str, names: list[str]
) -> None:
  variables, requested = module(Mixed(kind), 4)
  groups = dependency.groups(
    requested.apply, variables['params'], requested.examples
  )
  assert [group.name for group in groups] == names
  assert not any('gain' in s.path for g in groups for s in g.slices)


def test_pixels_that_are_integers_are_inputs_too() -> None:
  def apply(params: Any, x: jax.Array) -> jax.Array:
    y = jnp.float32(x) / 255
    for _ in range(2):  # the pixels, and then the channels
      y = nn.relu(y @ params['shared'])
    return y @ params['head']

  params = {'shared': jnp.ones((4, 4)), 'head': jnp.ones((4, 3))}
  for dtype in (jnp.uint8, jnp.float32):
    assert dependency.groups(apply, params, (jnp.ones((2, 4), dtype),)) == []


def test_rows_of_a_table_are_no_inputs() -> None:
  def apply(params: Any, ids: jax.Array) -> jax.Array:
    return params['table'][ids] @ params['kernel'] @ params['head']

  params = {k: jnp.ones((4, 4)) for k in ('table', 'kernel', 'head')}
  ids = jnp.zeros((2,), jnp.int32)
  names = [g.name for g in dependency.groups(apply, params, (ids,))]
  assert 'kernel' in names


@pytest.mark.slow
def test_a_gain_of_a_block_carries_the_channels_of_its_layer() -> None:
  variables, requested = module(Mixed('gain of a block'), 4)
  stem, inner = dependency.groups(
    requested.apply, variables['params'], requested.examples
  )
  assert (stem.name, inner.name) == ('stem', 'block/inner')
  assert not any('gain' in s.path for s in stem.slices)
  assert {(s.path, s.role) for s in inner.slices} == {
    ('block/inner/kernel', 'produces'),
    ('block/inner/bias', 'produces'),
    ('block/gain', 'carries'),
    ('head/kernel', 'consumes'),
  }


@pytest.mark.slow
def test_a_grouped_layer_elsewhere_does_not_prevent_pruning() -> None:
  spec = net(
    'grouped', conv('one'), Act(), conv('two'), conv('three', groups=2)
  )
  assert [g.name for g in groups(spec)] == ['one']
  with pytest.warns(UnchangedWarning, match='left two unchanged: they meet th'):
    cut = filters.filters(share=0.5, multiple=1).init(
      start(spec)['params'], calibrated(spec)
    )
  small_spec, small = shrink(spec, {**start(spec), 'params': cut})
  assert small['params']['two']['kernel'].shape == (3, 3, 2, 4)
  want, _ = run(spec, {**start(spec), 'params': cut}, 4)
  np.testing.assert_allclose(run(small_spec, small, 4)[0], want, atol=1e-5)


@pytest.mark.slow
def test_a_shortcut_around_a_concatenation_ties_both_paths() -> None:
  both = Branch(paths=((conv('a', 2),), (conv('b', 4),)), merge='concat')
  around = Branch(paths=((both,), (conv('skip', 6), Norm(name='norm'))))
  spec = net('around', around, Act())
  assert [(g.name, g.channels) for g in groups(spec)] == [
    ('a+skip', 2),
    ('b+skip', 4),
  ]
  cut = filters.filters(share=0.5, multiple=1).init(
    start(spec)['params'], calibrated(spec)
  )
  assert sliced.unsliced(cut['skip']['kernel']).shape == (3, 3, 1, 3)
  small_spec, small = shrink(spec, {**start(spec), 'params': cut})
  want, _ = run(spec, {**start(spec), 'params': cut}, 4)
  np.testing.assert_allclose(run(small_spec, small, 4)[0], want, atol=1e-5)
  assert small['params']['norm']['scale'].shape == (3,)


@pytest.mark.slow
def test_a_custom_module_is_pruned_without_a_change() -> None:
  variables, requested = module(Own())
  params = variables['params']
  small = filters.filters(share=0.5, multiple=1).init(
    params, Ctx(probe=requested)
  )
  zero, decoded = params, tree.decode(small)
  for group in found('own'):
    part = group.of('produces')[0]
    left = sliced.kept(tree.paths(small)[part.path], part.axis)
    gone = np.setdiff1d(np.arange(group.channels), left)
    assert 2 * len(gone) == group.channels
    for c in gone:
      zero = without(zero, group, ('produces', 'carries'), c)
      for s in group.slices:
        x = np.moveaxis(tree.paths(decoded)[s.path], s.axis, 0)
        assert not x[s.entries[c]].any()
  same, want, before = (
    requested.apply(x, *requested.examples) for x in (small, zero, params)
  )
  np.testing.assert_allclose(same, want, atol=1e-6)
  assert np.abs(same - before).max() > 1e-3
