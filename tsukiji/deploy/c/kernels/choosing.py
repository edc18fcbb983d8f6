"""Which kernel computes a product."""

import re

from tsukiji.deploy.c.kernels import (
  binary_product,
  code_kernels,
  dense_product,
  lane_lists,
  lane_product,
  packed_weights,
  plain_product,
  smlad,
  sparse_kernels,
  sparse_product,
  tile_kernels,
  vector_kernels,
)
from tsukiji.deploy.c.plan.steps import Step
from tsukiji.deploy.c.tables import Tables

STEMS = '|'.join(lane_lists.STEMS.values())


def product(step: Step, tables: Tables) -> list[str]:
  """Write a product by the fastest kernel that can compute it."""
  if step.attrs['examples'] > 1 or step.attrs['fours']:
    return lane_product.product(step, tables)
  if step.attrs['is_binary']:
    return binary_product.product(step, tables)
  if step.attrs['is_sparse']:
    return sparse_product.product(step, tables)
  if dense_product.fits(step):
    return dense_product.product(step, tables)
  return plain_product.product(step, tables)


def kernel_texts(uses: str) -> list[str]:
  """Return the inner loops that functions call, and what these need."""

  def calls(stem: str) -> list[tuple[str, ...]]:
    return sorted({*re.findall(rf'\b{stem}_(\d+)x(\d+)(\w*)\(', uses)})

  dense, codes, lists = map(calls, ('dense', 'codes', 'listed'))
  narrow = calls('narrow')
  lanes = sorted({*re.findall(rf'\b({STEMS})_(\d\w+)\(', uses)})
  found = [vector_kernels.TYPES] if dense or lists or lanes else []
  found += [vector_kernels.kernel(int(n), int(m)) for n, m, _ in dense]
  found += [
    sparse_kernels.kernel(int(n), int(m), short[1:]) for n, m, short in lists
  ]
  packed = calls('packed')
  found += [smlad.TYPES] if codes or narrow or packed else []
  found += [code_kernels.TYPES] if codes or narrow or packed else []
  for some in (codes, narrow):
    found += [
      code_kernels.kernel(int(n), int(m), some is narrow) for n, m, _ in some
    ]
  tiles = sorted({*re.findall(r'\btiles_(\d+)\(', uses)})
  found += [tile_kernels.TYPES] if tiles else []
  found += [tile_kernels.kernel(int(n)) for n in tiles]
  sizes = sorted({int(bits[1:]) for _, _, bits in packed})
  found += [packed_weights.TYPES] if packed else []
  found += [packed_weights.unpacked(size) for size in sizes]
  found += [
    packed_weights.kernel(int(n), int(m), int(bits[1:]))
    for n, m, bits in packed
  ]
  found += [lane_lists.TYPES] if lanes else []
  return found + [lane_lists.kernel(lane_lists.named(*x)) for x in lanes]
