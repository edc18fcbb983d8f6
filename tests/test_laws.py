"""The laws that every method and every chain of two of them keep.

A new method is one more row of `tests.samples.SAMPLES`; everything below then
holds it to the laws of the algebra, alone and in chains.
"""

import functools
import itertools
import re
import typing
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from compress import method, recipe, tree
from compress.channels import sliced
from compress.method import Ctx, Method, chain, only
from compress.prune import magnitude
from compress.prune.magnitude import Masked
from compress.quantize.fake_quant import FakeQuantized
from compress.quantize.integer_codes import Quantized, Shifted
from tests.runs import (
  NETWORKS,
  STEPS,
  TINY,
  Offset,
  Trained,
  assert_same_bits,
  calibrated,
  fit,
  one_shot,
  plan_of,
  run,
  served,
  shapes,
  start,
  state_of,
)
from tests.samples import (
  CHAINS,
  ELSEWHERE,
  FACTORED,
  FIRST,
  MADE,
  QUICK_CHAINS,
  REFUSED,
  SAMPLES,
  SHARE,
  TEXTS,
  TRAINED,
  WHOLE,
)
from tests.weight_files import pack_weights
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.models import spec as sp
from tsukiji.training import step as step_lib


def held(texts: Iterable[str]) -> list[Any]:
  """Return recipes as parameters; most chains are long runs."""
  long = {*CHAINS} - {*QUICK_CHAINS}
  return [
    pytest.param(text, marks=pytest.mark.slow if text in long else (), id=text)
    for text in texts
  ]


every_recipe = pytest.mark.parametrize('text', held(TEXTS))


@functools.cache
def trained(text: str) -> Trained:
  """Return one run a recipe, shared by the laws."""
  return fit(recipe.parse(text))


@functools.cache
def finished(text: str) -> dict[str, Any]:
  """Return the variables of the tiny network at the end of a recipe."""
  if text not in TRAINED:
    return one_shot(TINY, text)
  state = trained(text).state
  return state.variables


def test_every_method_of_the_table_is_here() -> None:
  makers = {
    name
    for name, make in recipe.TABLE.items()
    if typing.get_type_hints(make)['return'] is Method
  }
  assert set(SAMPLES) == makers - ELSEWHERE
  for name, texts in SAMPLES.items():
    assert all(text.startswith(f'{name}(') for text in texts)


# Law 1: a node decodes to the array it stands for.


@every_recipe
def test_decoded_shapes_are_the_dense_ones(text: str) -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  found = method.abstract(recipe.parse(text), params, ctx)
  assert jax.tree.structure(found) == jax.tree.structure(params)
  for x, dense in zip(
    jax.tree.leaves(found), jax.tree.leaves(params), strict=True
  ):
    assert (x.shape, x.dtype) == (dense.shape, dense.dtype)


@pytest.mark.parametrize(
  'dtype', ['bfloat16', pytest.param('float16', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('text', [texts[0] for texts in SAMPLES.values()])
def test_weights_of_16_bits_keep_their_type(text: str, dtype: str) -> None:
  compress, ctx = recipe.parse(text), calibrated(TINY)
  dense = start(TINY)['params']
  narrow = jax.tree.map(lambda x: x.astype(dtype), dense)

  def nodes_of(params: Any) -> Any:
    return method.traced(
      lambda p: compress.init(p, ctx), params, lambda: params
    )

  nodes = nodes_of(narrow)
  found = jax.eval_shape(tree.decode, nodes)
  arrays = tree.paths(found)
  for path, x in tree.paths(nodes).items():
    assert (x.shape, x.dtype) == (arrays[path].shape, arrays[path].dtype)
  assert shapes(found) == shapes(narrow)
  after = jax.eval_shape(
    lambda p, step, grads: compress.update(
      p, ctx._replace(step=step, grads=grads)
    ),
    nodes,
    jnp.int32(1),
    found,
  )
  assert shapes(after) == shapes(nodes)
  every = [tree.find(tree.Compressed, x) for x in (nodes, nodes_of(dense))]
  assert set(every[0]) == set(every[1])  # no weight is skipped


# Law 2: one compiled step for a whole run.


@every_recipe
def test_update_keeps_structure_and_types(text: str) -> None:
  params, ctx = start(TINY)['params'], calibrated(TINY)
  compress = recipe.parse(text)
  nodes = method.traced(lambda p: compress.init(p, ctx), params, lambda: params)
  grads = jax.eval_shape(tree.decode, nodes)
  grads = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), grads)
  after = jax.eval_shape(
    lambda p, step: compress.update(p, ctx._replace(step=step, grads=grads)),
    nodes,
    jnp.int32(1),
  )
  assert shapes(after) == shapes(nodes)


@every_recipe
def test_a_step_gives_what_the_next_one_takes(text: str) -> None:
  plan = plan_of(recipe.parse(text))
  calibrated(TINY)  # not under the tracing below
  state = method.traced(lambda _: state_of(plan), (), tuple)
  x = jax.ShapeDtypeStruct((8, *TINY.input_shape), jnp.float32)
  y = jax.ShapeDtypeStruct((8,), jnp.int32)
  after = jax.eval_shape(step_lib.make_step(plan), state, x, y)
  assert shapes(after) == shapes(state)


@pytest.mark.parametrize('text', held(TRAINED))
def test_a_run_is_traced_once_and_stays_finite(text: str) -> None:
  done = trained(text)
  assert done.traces == 1
  assert int(done.state.step) == STEPS
  assert int(done.state.bad_step) == step_lib.NEVER


# Law 3: a file holds the network to the bit.


@every_recipe
def test_packing_keeps_the_bits(text: str) -> None:
  variables = finished(text)
  blob = pack_weights(variables['params'], {'recipe': text})
  again = pack.unpack(blob)
  assert again.meta == {'recipe': text}
  assert_same_bits(
    tree.decode(again.variables['params']),
    tree.paths(tree.decode(variables['params'])),
  )
  assert pack.pack(*again) == blob


# Law 4: the deployed network computes what the trained one does.


def widths(params: Any) -> list[int]:
  """Return the bits of every input grid."""
  found = []

  def look(path: str, node: Any) -> Any:
    found.append(getattr(node, 'inputs', None))
    return node

  tree.map_nodes(tree.Compressed, look, params)
  return [inputs.bits for inputs in found if inputs]


def assert_lowers(spec: sp.Spec, variables: dict[str, Any]) -> None:
  """Compare a network with its deployed form."""
  graph, small = lower(spec, variables)
  assert small.keys() == {'params'}
  want, got = run(spec, variables)[0], served(spec, (graph, small))
  error = np.abs(got - want).max(axis=1) / np.abs(want).max()
  bits = widths(variables['params'])
  if not bits:
    assert error.max() < 1e-5
    return
  # Folding moves an activation by some 1e-7 of its size, and where that
  # crosses a tie of the next layer's grid the input moves by a whole step.
  # That is rare, and worth a few steps of the grid in the logits.
  assert np.mean(error < 1e-5) >= 0.75
  assert error.max() < 4 / 2 ** min(bits)


@every_recipe
def test_lowering_keeps_the_outputs(text: str) -> None:
  assert_lowers(TINY, finished(text))


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    *((name, 'quantize.uniform(4)') for name in NETWORKS),
    ('vgg', 'prune.weights(0.35) >> quantize.int8()'),
  ],
)
def test_lowering_keeps_the_outputs_of(name: str, text: str) -> None:
  assert_lowers(NETWORKS[name], one_shot(NETWORKS[name], text))


# Law 5: methods compose as functions do.


def program(one: Method) -> tuple[list[Any], Any, jax.Array]:
  """Return what a method computes: its program, its trees, its penalty."""
  params, ctx = start(TINY)['params'], calibrated(TINY)

  def life(params: Any) -> Any:
    nodes = one.init(params, ctx)
    return nodes, one.update(nodes, ctx._replace(step=STEPS, grads=params))

  try:
    closed, trees = jax.make_jaxpr(life, return_shape=True)(params)
    made = listed(closed.jaxpr)
  except jax.errors.TracerArrayConversionError:  # sizes hang on values
    trees = life(params)
    made = [np.asarray(x).tolist() for x in jax.tree.leaves(trees)]
  nodes = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), trees[0])
  return made, shapes(trees), one.loss(nodes, ctx)


def listed(program: Jaxpr) -> list[Any]:
  """Return equations as nested lists: text shows which parts JAX has cached."""
  numbers: dict[Any, int] = {}

  def variable(x: Any) -> str:
    if isinstance(x, Literal):
      return str(x)
    return f'{numbers.setdefault(x, len(numbers))}:{x.aval}'

  def value(x: Any) -> Any:
    if isinstance(x, tuple | list):
      return [value(y) for y in x]
    if isinstance(x, Jaxpr | ClosedJaxpr):
      return listed(getattr(x, 'jaxpr', x))
    return type(x) if callable(x) else str(x)

  ends = [*map(variable, (*program.constvars, *program.invars))]
  for one in program.eqns:
    params = {name: value(x) for name, x in one.params.items()}
    names = [[*map(variable, x)] for x in (one.invars, one.outvars)]
    ends.append([one.primitive.name, *names, params])
  return [*ends, [*map(variable, program.outvars)]]


@functools.cache
def parsed(text: str) -> tuple[Method, tuple[list[Any], Any, jax.Array]]:
  """Return a method and what it computes, shared by the laws."""
  compress = recipe.parse(text)
  return compress, program(compress)


@every_recipe
def test_the_empty_chain_is_the_unit(text: str) -> None:
  compress, want = parsed(text)
  assert program(chain(chain(), compress)) == want
  assert program(chain(compress, chain())) == want


@every_recipe
def test_only_everywhere_is_the_method(text: str) -> None:
  compress, want = parsed(text)
  assert program(only('.*', compress)) == want


@every_recipe
def test_only_nowhere_names_the_weights(text: str) -> None:
  compress = only('nothing', recipe.parse(text))
  with pytest.raises(ValueError, match='conv/kernel, fc/kernel') as caught:
    compress.init(start(TINY)['params'], calibrated(TINY))
  assert "'nothing'" in str(caught.value)


def penalty(params: Any, ctx: Ctx) -> jax.Array:
  """Return a loss that counts its calls."""
  del params
  return jnp.float32(2.0) ** ctx.steps


@pytest.mark.parametrize('order', [*itertools.permutations(range(3))])
def test_chains_are_associative(order: tuple[int, ...]) -> None:
  methods = (
    only('fc/kernel', magnitude.weights(0.5)),
    recipe.parse('quantize.uniform(4, 6)'),
    Method(loss=penalty),
  )
  a, b, c = (methods[i] for i in order)
  want = program(chain(a, b, c))
  assert program(chain(chain(a, b), c)) == want
  assert program(chain(a, chain(b, c))) == want
  assert float(want[-1]) == 2**STEPS


@pytest.mark.parametrize(('one', 'other'), REFUSED)
def test_two_methods_for_one_weight_are_refused(one: str, other: str) -> None:
  both = recipe.parse(f'{SAMPLES[one][0]} >> {SAMPLES[other][0]}')
  first = other in (*FIRST, *FACTORED) or (
    one.startswith(('binary', 'share', *MADE))
    and not other.startswith('quantize')
  )
  why = 'Put it first' if first else 'one .* method'
  with pytest.raises(ValueError, match=f'/kernel.*{why}'):
    method.abstract(both, start(TINY)['params'], calibrated(TINY))


# Law 6: what is pruned is 0, and as much as was asked for (any share of any
# array: `test_prune`).


@pytest.mark.parametrize(
  'text',
  held(
    text
    for text in TEXTS
    if 'prune.weights' in text and not text.startswith((*FIRST, *FACTORED))
  ),
)
def test_pruned_positions_are_zero_at_the_end(text: str) -> None:
  params = finished(text)['params']
  nodes = tree.find(Masked, params)
  masks = {path: np.asarray(node.mask) for path, node in nodes.items()}
  assert set(masks) == {'conv/kernel', 'fc/kernel'}
  asked = SHARE.search(text)
  whole = [np.concatenate([m.ravel() for m in masks.values()])]
  for mask in whole if WHOLE.search(text) else masks.values():
    assert np.any(~mask)
    if asked:
      assert np.sum(~mask) == round(float(asked[1]) * mask.size)
  decoded = tree.paths(tree.decode(params))
  for path, mask in masks.items():
    assert np.all(np.asarray(decoded[path])[~mask] == 0)
    assert np.any(np.asarray(decoded[path])[mask] != 0)


@pytest.mark.parametrize('text', held(t for t in TEXTS if t.startswith(FIRST)))
def test_removed_channels_are_zero_at_the_end(text: str) -> None:
  params = finished(text)['params']
  nodes = tree.find(sliced.Sliced, params)
  assert {'conv/kernel', 'fc/kernel'} <= set(nodes)
  decoded = tree.paths(tree.decode(params))
  for path, node in nodes.items():
    gone = np.setdiff1d(np.arange(node.size), node.keep)
    assert 2 * len(gone) == node.size
    assert not np.take(np.asarray(decoded[path]), gone, node.axis).any()


# Law 7: what is served is what was trained.


@every_recipe
def test_frozen_nodes_decode_to_the_same_bits(text: str) -> None:
  params = finished(text)['params']
  frozen = tree.freeze(params)
  assert not tree.find(FakeQuantized, frozen)
  assert_same_bits(tree.decode(frozen), tree.decode(params))
  assert_same_bits(tree.decode(frozen), jax.jit(tree.decode)(params))
  for node in tree.find(Quantized, frozen).values():
    codes, top = np.asarray(node.codes), 2 ** (node.bits - 1) - 1
    assert codes.dtype == (np.int8 if node.bits <= 8 else np.int16)
    if isinstance(node, Shifted):
      assert np.all((codes >= -top - 1) & (codes <= top))
      continue
    sizes = np.abs(codes.astype(int)).max(axis=tuple(range(codes.ndim - 1)))
    assert np.all(sizes <= top)
    # The largest weight of a channel spans the grid, unless it was pruned.
    if re.search(r'(uniform\(\d+(, \d+)?|int8\()\)', text):
      assert np.all(sizes == top) or 'prune' in text


@every_recipe
def test_frozen_networks_give_the_same_logits(text: str) -> None:
  variables = finished(text)
  frozen = {**variables, 'params': tree.freeze(variables['params'])}
  assert_same_bits(run(TINY, frozen), run(TINY, variables))


def test_compiled_frozen_networks_give_the_same_logits() -> None:
  variables = finished(QUICK_CHAINS[-1])
  frozen = {**variables, 'params': tree.freeze(variables['params'])}
  compiled = jax.jit(functools.partial(run, TINY))
  assert_same_bits(compiled(frozen), compiled(variables))


# Training moves what is trainable and nothing else.


def test_frozen_fields_do_not_move() -> None:
  offset = Method(
    lambda params, ctx: tree.map_arrays(lambda _, w: Offset(w, w), params)
  )
  text = 'prune.weights(0.35) >> quantize.uniform(5, 6, momentum=1.0)'
  done = fit(chain(offset, recipe.parse(text)))
  trainable, frozen = tree.split(done.before)
  trainable_after, frozen_after = tree.split(done.state.params)
  assert len(jax.tree.leaves(frozen)) == 2 * len(
    ['base', 'mask', 'low', 'high']
  )
  assert_same_bits(frozen_after, frozen)
  for x, y in zip(
    jax.tree.leaves(trainable), jax.tree.leaves(trainable_after), strict=True
  ):
    assert np.any(np.asarray(x) != np.asarray(y))
