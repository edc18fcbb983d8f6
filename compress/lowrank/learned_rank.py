"""Learned ranks: each layer finds its rank while the network trains."""

import math
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from compress import learning_compression, tree
from compress.errors import expect_name
from compress.learning_compression import Rounds
from compress.lowrank import factors
from compress.lowrank.factors import FOLDS, Factored, LowRank
from compress.method import Ctx, Method, expect_probe
from compress.tree import Array, Params, Path


@struct.dataclass
class Ranked(Factored):
  """A product of full rank that is truncated to its first terms.

  Attributes:
    u: As in `LowRank`, of full rank.
    v: As there.
    rank: Number of terms, `()` int32.
    price: Cost of one number of the weight, `()` float32.
  """

  trainable: ClassVar[tuple[str, ...]] = ('u', 'v')
  inner: ClassVar[tuple[str, ...]] = ('u', 'v')

  u: Any
  v: Any
  rank: Array
  price: Array

  def decode(self) -> Array:
    """Return the product over the rank."""
    count = jnp.arange(self.u.shape[-1]) < self.rank
    return factors.product(jnp.where(count, self.u, 0), self.v)

  def freeze(self) -> Any:
    """Return the factors of that rank, or the weight where it is smaller."""
    w, n = self.decode(), int(self.rank)
    small = LowRank(self.u[..., :n], self.v[..., :n, :])
    return w if small.u.size + small.v.size >= w.size else small


def learned_rank(
  alpha: float,
  *,
  of: str = 'size',
  fold: str = 'channel',
  mu: float = 1e-2,
  growth: float = 1.2,
  rounds: int = 30,
  finetune_at: float = 0.7,
) -> Method:
  r"""Train weights and ranks jointly, with a cost of each rank.

  $\min_{W, r} L(W) + \alpha \sum_l C_l(r_l)$ subject to $\mathrm{rank}(W_l) =
  r_l$ by `lc`, whose C step is exact (Idelbayev & Carreira-Perpinan 2020,
  CVPR, equation 5): $r_l = \arg\min_r \alpha C_l(r) + \frac{\mu}{2} \sum_{i >
  r} \sigma_i^2$. One number sets all ranks; a layer that costs less dense than
  factored stays dense.

  Args:
    alpha: Cost of the dense network, in units of the loss; above 0.
    of: What is counted: 'size' (numbers) or 'macs' (multiplications).
    fold: As in `lowrank.svd`.
    mu: As in `lc`; layers have rank 1 while mu is small compared with alpha.
    growth: As in `lc`.
    rounds: As in `lc`.
    finetune_at: As in `lc`.

  Returns:
    The method. Ranks are fixed from `finetune_at` on, and the factors train.

  Raises:
    ValueError: If an argument is out of range, or multiplications are counted
      without a probe that knows them.
  """
  where = 'lowrank.learned_rank'
  if not 0 < alpha < math.inf:
    raise ValueError(
      f'{where}: expected an alpha above 0, got {alpha!r}. It is the cost of '
      'the dense network in units of the loss.'
    )
  expect_name(where, 'of', of, ('macs', 'size'))
  expect_name(where, 'fold', fold, FOLDS)

  def project(
    params: Params, ctx: Ctx, mu: Array, before: Params | None
  ) -> Params:
    if before is None:
      prices = _prices(where, params, ctx, of)
    else:
      prices = {p: x.price for p, x in tree.find(Ranked, before).items()}

    def factor(path: Path, w: Array) -> Ranked:
      return ranked(w, alpha * prices[path], mu, fold).replace(
        price=jnp.float32(prices[path])
      )

    return tree.map_arrays(factor, params)

  plan = Rounds(mu, growth, rounds, finetune_at, True)
  return learning_compression.learning(where, Method(), project, plan)


def ranked(w: Array, price: Array | float, mu: Array, fold: str) -> Ranked:
  r"""Return the product of least $c\,n(r) + \frac{\mu}{2} \|W - W_r\|^2$.

  Args:
    w: The weight.
    price: c, of each of the n(r) numbers of rank r, or of w if it has fewer.
    mu: The penalty.
    fold: See `factors.folded`.

  Returns:
    The node, of rank 1 or more.
  """
  full = factors.truncated(w, min(factors.folded(w, fold).shape), fold)
  top = full.u.shape[-1]
  # Each factor holds the roots of the singular values.
  u = full.u.astype(jnp.promote_types(w.dtype, jnp.float32))
  values = jnp.sum(u**2, axis=tuple(range(u.ndim - 1)))
  square = jnp.minimum(values, jnp.sqrt(jnp.finfo(u.dtype).max / top)) ** 2
  lost = jnp.sum(square) - jnp.cumsum(square)
  numbers = (full.u.size + full.v.size) // top * jnp.arange(1, top + 1)
  dense = numbers >= w.size
  total = jnp.where(
    dense, price * w.size, price * numbers + mu / 2 * jnp.maximum(lost, 0)
  )
  best = jnp.argmin(total)
  # Where factors are no smaller the weight is kept, which has full rank.
  rank = jnp.where(dense[best], top, best + 1).astype(jnp.int32)
  return Ranked(full.u, full.v, rank, jnp.float32(0))


def _prices(where: str, params: Params, ctx: Ctx, of: str) -> dict[Path, float]:
  """Return the cost of a number of each weight; the network costs 1."""
  uses = expect_probe(where, ctx).uses if of == 'macs' else {}
  sizes: dict[Path, int] = {}
  tree.map_arrays(lambda path, w: sizes.setdefault(path, w.size), params)
  for path in sizes if of == 'macs' else ():
    if path not in uses:
      raise ValueError(
        f'{where} at {path}: expected a weight with known uses, as '
        f"{', '.join(uses)}. Use of='size'."
      )
  total = sum(n * uses.get(path, 1) for path, n in sizes.items())
  return {path: uses.get(path, 1) / total for path in sizes}
