"""Pieces of weights are codewords."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compress import recipe
from compress.method import Ctx
from compress.share.codebook import Products

DRAWN = np.random.default_rng(0)

PARAMS = {
  'conv': {'kernel': jnp.float32(DRAWN.normal(size=(3, 3, 2, 4)))},
  'fc': {
    'bias': jnp.ones(6),
    'kernel': jnp.float32(DRAWN.normal(size=(10, 6))),
  },
}

CTX = Ctx(0, 9, jax.random.key(0))


def init(text: str) -> Any:
  return recipe.parse(text).init(PARAMS, CTX)


def test_pieces_are_codewords() -> None:
  node = init('share.product(3, 4, codebooks=2)')['fc']['kernel']
  assert isinstance(node, Products)
  assert node.values.shape == (2, 3, 4)
  assert node.index.shape == (3, 6)
  got = np.pad(np.asarray(node.decode(None)), ((0, 2), (0, 0)))
  for piece, channel in np.ndindex(3, 6):
    book = piece * 2 // 3
    word = np.array(node.values[book, node.index[piece, channel]])
    if piece == 2:
      word[2:] = 0  # the last piece is half beyond the inputs
    np.testing.assert_array_equal(got[4 * piece : 4 * piece + 4, channel], word)
