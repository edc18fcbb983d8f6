"""A small node of every kind that a file may hold."""

from typing import Any

import numpy as np

from compress.binary.inputs import Signed
from compress.binary.weights import Binarized
from compress.channels.sliced import Sliced
from compress.dataflow.arranged import Arranged
from compress.lowrank.factors import LowRank, Separable, Tucker
from compress.lowrank.plus_sparse import Summed
from compress.node import Narrowed
from compress.prune.masked import Masked
from compress.quantize.batch_norm import Folded
from compress.quantize.half import Half
from compress.quantize.integer_codes import Inputs, Quantized, Shifted
from compress.share.codebook import Hashed, Products, Shared
from compress.structured.matrices import Structured
from compress.structured.tied_filters import Transferred


def floats(*shape: int) -> np.ndarray:
  """Return floats that differ."""
  return np.sin(np.arange(np.prod(shape), dtype=np.float32) + 1).reshape(shape)


def codes(*shape: int) -> np.ndarray:
  """Return codes of 3 bits."""
  return (np.arange(np.prod(shape)) % 7 - 3).astype(np.int8).reshape(shape)


def index(top: int, *shape: int, dtype: Any = np.uint8) -> np.ndarray:
  """Return indices below a number."""
  return (np.arange(np.prod(shape)) % top).astype(dtype).reshape(shape)


def tiles(family: str, n: int, lines: int, held: Any, grid: int = 1) -> Any:
  """Return a matrix of n rows and columns in tiles."""
  values = floats(grid, grid, lines, n // grid)
  return Structured(values, held, floats(n), family, (n, n))


def every(n: int) -> dict[str, Any]:
  """Return nodes by name, `[n, n]` or `[3, 3, n, n]`; n is a power of two."""
  log = n.bit_length() - 1
  inputs = Inputs(np.float32(-1), np.float32(2), 8)
  quantized = Quantized(codes(n, n), floats(n), inputs, 3)
  bank = (3, 3, n, n)
  order = index(n, n, dtype=np.int32)
  wide = floats(2, n)
  return {
    'Arranged': Arranged(quantized, (n, n), (1, 0)),
    'Binarized': Binarized(codes(n, n) > 0, floats(n)),
    'Binarized, one': Binarized(codes(n, n) > 0, None),
    'Folded': Folded(quantized, floats(n)),
    'Half': Half(floats(n, n).astype(np.float16), floats(n)),
    'Half, bits': Half(index(256, n, n, dtype=np.uint16), None),
    'Hashed': Hashed(floats(5), 3, (n, n), floats(n)),
    'LowRank': LowRank(floats(n, 2), Half(floats(2, n).astype(np.float16))),
    'LowRank, spatial': LowRank(floats(3, 1, n, 2), floats(1, 3, 2, n)),
    'Masked': Masked(floats(n, n), codes(n, n) > 0),
    'Masked, brain floats': Masked(
      floats(n, n).astype('bfloat16'), codes(n, n) > 0
    ),
    'Narrowed': Narrowed(quantized, 'bfloat16'),
    'Products': Products(floats(2, 3, 2), index(3, n // 2, n), (n, n), None),
    'Quantized': quantized,
    'Quantized, groups': Quantized(codes(n, n), wide, None, 3),
    'Quantized, tensor': Quantized(codes(n, n), np.float32(0.5), None, 3),
    'Separable': Separable(
      floats(1, 1, n, 2),
      floats(3, 1, 1, 2),
      floats(1, 3, 1, 2),
      wide[None, None],
    ),
    'Shared': Shared(floats(4), index(5, n, n), floats(n)),
    'Shifted': Shifted(codes(n, n), wide, None, 3, codes(2, n)),
    'Signed': Signed(floats(n, n), floats(n), 'clipped', False),
    'Sliced': Sliced(quantized, index(n, n, dtype=np.int32) * 2, 0, 2 * n),
    'Structured, butterfly': tiles('butterfly', n, 2 * log, None),
    'Structured, circulant': tiles(
      'circulant', n, 1, index(2, 2, n // 2) > 0, grid=2
    ),
    'Structured, fastfood': tiles('fastfood', n, 3, index(n, n, dtype='i4')),
    'Structured, toeplitz': tiles('toeplitz', n, 4, None, grid=2),
    'Summed': Summed(LowRank(floats(n, 2), wide), floats(n, n)),
    'Transferred, copies': Transferred(
      floats(3, 3, n, n // 2), order, None, 'copies', 2, bank
    ),
    'Transferred, crops': Transferred(
      floats(4, 4, n, n // 4), order, floats(n), 'crops', 1, bank
    ),
    'Transferred, signs': Transferred(
      floats(3, 3, n, n // 2), order, None, 'signs', 2, bank
    ),
    'Transferred, turns': Transferred(
      floats(3, 3, n, n // 4), order, None, 'turns', 4, bank
    ),
    'Tucker': Tucker(floats(1, 1, n, 2), floats(3, 3, 2, 2), wide[None, None]),
  }
