"""What decoding takes is known from shapes, and no node takes more."""

from typing import Any

import jax
import numpy as np
import pytest

from compress import tree
from tests.tsukiji.deploy.tsk import kinds
from tsukiji.deploy.tsk import memory_bounds, node_rules
from tsukiji.deploy.tsk.header import Slot
from tsukiji.deploy.tsk.memory_bounds import Cost
from tsukiji.deploy.tsk.node_forms import NODES

SMALL, LARGE = kinds.every(4), kinds.every(128)


def cost_of(node: Any) -> Cost:
  """Return the cost of a node, from shapes."""
  slots = jax.tree.map(lambda x: Slot('w', x.dtype, x.shape), node)
  (cost,) = memory_bounds.costs({'w': slots}).values()
  return cost


def test_every_kind_has_a_rule_and_a_sample() -> None:
  assert {*node_rules.RULES} == {*NODES} - {'Inputs'}
  assert {name.partition(',')[0] for name in SMALL} == {*node_rules.RULES}


@pytest.mark.parametrize('name', SMALL)
def test_shapes_are_those_of_jax(name: str) -> None:
  for node in (SMALL[name], LARGE[name]):
    cost, want = cost_of(node), jax.eval_shape(tree.decode, node)
    assert (cost.leaf.shape, cost.leaf.dtype) == (want.shape, want.dtype)
    assert cost.stored == sum(x.nbytes for x in jax.tree.leaves(node))
    for program in cost.programs:
      program.trace()


@pytest.mark.parametrize('name', LARGE)
def test_no_node_takes_more_memory(name: str) -> None:
  node = LARGE[name]
  compiled = jax.jit(tree.decode).lower(node).compile()
  used = compiled.memory_analysis()
  assert cost_of(node).peak >= (
    used.argument_size_in_bytes
    + used.output_size_in_bytes
    + used.temp_size_in_bytes
  )


def test_products_are_counted() -> None:
  # [16, 2] by [2, 16]; [8, 8] by [8, 8] twice in each of 4 tiles.
  found = kinds.every(16)
  assert cost_of(found['LowRank']).macs == 16 * 2 * 16
  assert cost_of(found['Structured, toeplitz']).macs == 4 * 2 * 8**3
  assert cost_of(found['Structured, fastfood']).macs == 16**3
  assert cost_of(found['Quantized']).macs == 0


def test_an_array_costs_itself() -> None:
  x = np.zeros((3, 5), np.float16)
  found = memory_bounds.costs({'a': ({'b': x}, None)})
  assert [*found] == ['a/0/b']
  assert found['a/0/b'][1:4] == (30, 30, 0)


def replaced(name: str, **changes: Any) -> Any:
  return SMALL[name].replace(**changes)


TWO = np.zeros((2, 2), np.float32)
WRONG = {
  'a scale of each entry': replaced('Quantized', scale=TWO[:1].repeat(4, 0)),
  'a scale of other channels': replaced('Quantized', scale=kinds.floats(3)),
  'no integer bits': replaced('Quantized', bits=3.0),
  'bits beyond': replaced('Quantized', bits=33),
  'a grid of two numbers': replaced(
    'Quantized', inputs=SMALL['Quantized'].inputs.replace(low=TWO)
  ),
  'an array for a grid': replaced('Quantized', inputs=TWO),
  'a node for codes': replaced('Quantized', codes=SMALL['Half']),
  'floats for codes': replaced('Quantized', codes=TWO),
  'a zero of another shape': replaced('Shifted', zero=kinds.codes(3, 4)),
  'a scale that swells': replaced('Binarized', scale=np.zeros((4, 1, 4), 'f4')),
  'full floats': replaced('Half', halves=TWO),
  'a node in a hash': replaced('Hashed', values=SMALL['Hashed']),
  'no buckets': replaced('Hashed', values=kinds.floats(0)),
  'a negative shape': replaced('Hashed', shape=(-4, -4)),
  'a shape of floats': replaced('Hashed', shape=(4.0, 4)),
  'too few pieces': replaced('Products', shape=(9, 4)),
  'factors apart': replaced('LowRank', u=kinds.floats(4, 3)),
  'a vector': replaced('LowRank', u=kinds.floats(4)),
  'sides apart': replaced('LowRank, spatial', u=kinds.floats(3, 2, 4, 2)),
  'a mask of another shape': replaced('Masked', mask=np.ones((1, 4), bool)),
  'a sum that swells': replaced('Summed', sparse=kinds.floats(1, 4)),
  'another gradient': replaced('Signed', gradient='sharp'),
  'an axis beyond': replaced('Sliced', axis=2),
  'more kept than there are': replaced('Sliced', size=3),
  'another family': replaced('Structured, toeplitz', family='hankel'),
  'odd lines': replaced(
    'Structured, toeplitz', values=kinds.floats(2, 2, 3, 2)
  ),
  'tiles that cover less': replaced('Structured, circulant', shape=(5, 4)),
  'a block of 3': replaced(
    'Structured, fastfood', values=kinds.floats(2, 2, 3, 3)
  ),
  'signs of another block': replaced(
    'Structured, circulant', held=np.ones((2, 3), bool)
  ),
  'something held': replaced('Structured, butterfly', held=TWO),
  'other moves': replaced('Transferred, copies', family='shears'),
  'no extent': replaced('Transferred, copies', extent=0),
  'filters of another size': replaced('Transferred, crops', extent=2),
  'fewer outputs': replaced('Transferred, turns', order=kinds.index(4, 3)),
}


@pytest.mark.parametrize('name', WRONG)
def test_fields_that_do_not_fit_are_refused(name: str) -> None:
  with pytest.raises(ValueError, match='^artefact: expected .* at w'):
    memory_bounds.costs({'w': WRONG[name]})


def test_nodes_nest_only_so_far() -> None:
  node: Any = kinds.floats(2, 2)
  for _ in range(memory_bounds.NESTED + 1):
    node = around(node)
  with pytest.raises(ValueError, match='nodes inside each other'):
    memory_bounds.costs({'w': node})


def around(w: Any) -> Any:
  return SMALL['Signed'].replace(w=w, threshold=None)
