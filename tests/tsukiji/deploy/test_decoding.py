"""Weights decode to the bits that they stand for."""

import jax
import numpy as np
import pytest

from compress import tree
from tests.tsukiji.deploy.tsk import kinds
from tsukiji.deploy.decoding import decoded

NODES = kinds.every(4)


@pytest.mark.parametrize('name', ['Folded', 'Half', 'Products', 'Sliced'])
def test_nodes_decode_to_the_same_bits(name: str) -> None:
  got = decoded({'a': NODES[name], 'b': 1.0})
  assert got['b'] == 1.0
  want = tree.decode(jax.tree.map(jax.numpy.asarray, NODES[name]))
  np.testing.assert_array_equal(got['a'], want)
