"""Product quantization: pieces of weights share a few codewords."""

import jax
import jax.numpy as jnp
import numpy as np

from compress import random
from compress.method import Ctx, Method
from compress.share import base, clustering
from compress.share.codebook import Products
from compress.tree import Array, Path


def product(
  clusters: int = 16,
  length: int = 4,
  *,
  codebooks: int = 1,
  sweeps: int = clustering.SWEEPS,
) -> Method:
  """Cluster pieces of the inputs of each channel, and train the codewords.

  Product quantization (Gong+ 2014, arXiv 1412.6115, section 3.3): the inputs
  of a kernel are split into pieces of `length` and the pieces clustered. An
  index takes log2(clusters) / length bits per weight.

  Args:
    clusters: Codewords per codebook, from 1.
    length: Inputs per piece, from 1; the last one is padded with zeros.
    codebooks: Each serves the same number of neighboring pieces; the paper has
      one per piece, whose size pays off only in wide layers.
    sweeps: As `kmeans`.

  Returns:
    The method.

  Raises:
    ValueError: As `kmeans`, or if there are more codebooks than pieces.
  """
  where = 'share.product'
  for what, n in (
    ('clusters', clusters),
    ('length', length),
    ('codebooks', codebooks),
    ('sweeps', sweeps),
  ):
    base.expect_count(where, what, n)

  def share(path: Path, w: Array, mask: Array | None, ctx: Ctx) -> Products:
    del mask  # pruned entries are 0 whatever the codeword is
    flat = w.reshape(-1, w.shape[-1])
    pieces = -(-len(flat) // length)
    members = pieces // max(codebooks, 1) * w.shape[-1]
    if codebooks > pieces or clusters > members:
      raise ValueError(
        f'{where} at {path}: expected at most {pieces} codebooks of at most '
        f'{members} clusters, got {codebooks} of {clusters}. Ask for fewer, or '
        'for shorter pieces.'
      )
    padded = jnp.pad(flat, ((0, pieces * length - len(flat)), (0, 0)))
    rows = padded.reshape(pieces, length, -1).transpose(0, 2, 1)
    book = np.arange(pieces) * codebooks // pieces
    values, index = [], []
    if ctx.key is None:
      raise ValueError(
        f'{where}: expected a key in the context, got None. Pass '
        'Ctx(key=jax.random.key(seed)).'
      )
    key = random.own(ctx.key, path)
    for i, own in enumerate(jax.random.split(key, codebooks)):
      part = rows[book == i]
      these = part.reshape(-1, length)
      values.append(clustering.lloyd_rows(these, clusters, own, sweeps))
      near = clustering.closest(these.astype(jnp.float32), values[-1])
      index.append(near.reshape(len(part), -1))
    codes = jnp.concatenate(index).astype(base.index_dtype(clusters))
    return Products(jnp.stack(values).astype(w.dtype), codes, w.shape)

  return base.sharing(where, share)
