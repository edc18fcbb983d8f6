"""Pieces of weights are codewords."""

import numpy as np

from compress.share.codebook import Products
from tests.two_layers import init


def test_pieces_are_codewords() -> None:
  node = init('share.product(3, 4, codebooks=2)')['fc']['kernel']
  assert isinstance(node, Products)
  assert node.values.shape == (2, 3, 4)
  assert node.index.shape == (3, 6)
  got = np.pad(np.asarray(node.decode()), ((0, 2), (0, 0)))
  for piece, channel in np.ndindex(3, 6):
    book = piece * 2 // 3
    word = np.array(node.values[book, node.index[piece, channel]])
    if piece == 2:
      word[2:] = 0  # the last piece is half beyond the inputs
    np.testing.assert_array_equal(got[4 * piece : 4 * piece + 4, channel], word)
