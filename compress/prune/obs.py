"""Optimal Brain Surgeon: pruning that updates the remaining weights."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from compress import linalg, tree
from compress.method import Ctx, Method, expect_probe
from compress.prune import importance
from compress.prune.lottery_ticket import cumulative_shares
from compress.prune.masked import Masked, add_masks, replace_masks
from compress.prune.selection import select_share
from compress.tree import Array, Params, Path

ENTRIES = 2**28  # of all matrices, by default: 1 GiB
NUMBERS = 2**31  # of the single gradients of all rounds, by default
ROUNDS, SAMPLES = 4, 256  # by default, at most
WIDE = 2**18  # weights of an array whose products are computed by inputs
LARGEST = 1e15  # of a gradient: squares of thousands of them can be summed
MIN_DAMPING = 1e-6  # keeps F regular where all gradients are 0


def obs(
  sparsity: float,
  *,
  scope: str = 'layer',
  block: int | None = None,
  samples: int | None = None,
  damping: float = 0.01,
  rounds: int | None = None,
  floor: float = 0.01,
) -> Method:
  r"""Prune by curvature and update the remaining weights to compensate.

  Optimal Brain Surgeon on the empirical Fisher matrix $F$ of blocks of weights
  (WoodFisher: Singh & Alistarh 2020, arXiv 2004.14340, equations 5 to 9). The
  score is $w_q^2 / (2 [F^{-1}]_{qq})$. Pruning the weights $P$ of a block
  changes the others by

  $\delta = -F^{-1} E_P (E_P^T F^{-1} E_P)^{-1} w_P$,

  which is $F_{KK}^{-1} F_{KP} w_P$ on the kept ones $K$: the update of the
  paper for one weight, and the exact one for several, where the paper adds
  single updates. The inverse equals that of the paper's rank-one recursion, but
  is computed from a Cholesky factor. A block holds consecutive inputs of an
  output.

  Args:
    sparsity: Share of zeros among the weights, in [0, 1); exact.
    scope: 'layer' or 'global', as `prune.weights`.
    block: Weights in a block, B, by default 128, or less if the matrices of
      the network would take more than 1 GiB. Memory is 4 B bytes and time
      O(B^2) per weight.
    samples: Calibration examples whose gradients make F, N, by default 256.
    damping: Added to the diagonal of F, as a fraction of its mean.
    rounds: Number of pruning steps, each with new gradients and pruning the
      same share of the remaining weights, by default 4. By default the
      gradients of all samples and rounds are at most 2^31 numbers: there are
      fewer rounds above 2 million weights, 1 from 4 million, and fewer samples
      above 8 million, 64 for 32 million, but at least 16.
    floor: As `prune.weights`.

  Returns:
    The method; masks do not change after `init`.

  Raises:
    ValueError: If an argument is impossible or there is no calibration data.
  """
  where = 'prune.obs'
  select = select_share(where, sparsity, scope, floor)
  counts = {'samples': samples, 'rounds': rounds, 'block': block}
  for what, count in counts.items():
    if count is not None:
      _expect_count(where, what, count)
  if not 0 < damping < float('inf'):
    raise ValueError(
      f'{where}: expected a positive damping, got {damping!r}. It is a '
      'fraction of the mean of the diagonal, as 0.01.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    params = add_masks(where, params)
    nodes = tree.find(Masked, params)
    size = sum(node.mask.size for node in nodes.values())
    steps, count = default_work(size, rounds, samples)
    for part in cumulative_shares(sparsity, steps)[1:]:
      params = prune_once(params, ctx, jnp.float32(part), count)
    return params

  def prune_once(params: Params, ctx: Ctx, part: Array, count: int) -> Params:
    nodes = tree.find(Masked, params)
    fishers = _fishers(where, params, ctx, count, block, damping)
    scores = {p: saliency(node, *fishers[p]) for p, node in nodes.items()}
    masks = select(scores, part)

    def visit(path: Path, node: Masked) -> Masked:
      matrices, _ = fishers.pop(path)  # freed before those of the next round
      return node.replace(w=compensated(node, masks[path], matrices))

    return replace_masks(tree.map_nodes(Masked, visit, params), masks)

  return Method(init)


@dataclasses.dataclass(frozen=True)
class BlockProducts:
  """The statistic of `Probe.reduce` whose mean is F, without damping.

  Attributes:
    block: Weights in a block, B.
  """

  block: int

  def __call__(
    self, weights: dict[Path, Array], gradients: dict[Path, Array]
  ) -> dict[Path, Array]:
    """Return the sum of outer products in each block, `[blocks, B, B]`."""
    del weights

    def products(g: Array) -> Array:
      g = jnp.clip(g, -LARGEST, LARGEST)
      whole = math.prod(g.shape[1:-1]) % self.block == 0
      if whole and g[0].size >= WIDE:
        return _products_by_input(g, self.block)
      return jax.lax.map(
        lambda rows: rows.T @ rows,
        _cut(g, 1, self.block),
        batch_size=_batch(self.block),
      )

    return {path: products(g) for path, g in gradients.items()}


def _products_by_input(g: Array, block: int) -> Array:
  """Return outer products where no block runs over two outputs.

  The blocks of some inputs of all outputs at a time: transposing the whole
  gradients would take longer than the products.
  """
  rows = g.reshape(len(g), -1, block, g.shape[-1])

  def some(k: Array) -> Array:
    x = jax.lax.dynamic_index_in_dim(rows, k, 1, keepdims=False)
    return jnp.einsum('nim,njm->mij', x, x)

  found = jax.lax.map(some, jnp.arange(rows.shape[1]))
  return found.swapaxes(0, 1).reshape(-1, block, block)


def _fishers(
  where: str,
  params: Params,
  ctx: Ctx,
  samples: int,
  block: int | None,
  damping: float,
) -> dict[Path, tuple[Array, Array]]:
  """Return the Fisher matrices of each masked weight, as `damped`."""
  probe = expect_probe(where, ctx)
  nodes = tree.find(Masked, params)
  paths = importance.weight_paths(params)
  for path, node in nodes.items():
    if path not in paths:
      raise importance.no_gradient(where, path, node.mask.shape)
  sizes = {path: node.mask.size for path, node in nodes.items()}
  if block is None:
    block = default_block(sum(sizes.values()))
  found = probe.reduce(params, tuple(nodes), BlockProducts(block), samples)
  # One after the other, so that the undamped matrices can be freed.
  return {p: damped(found.pop(p), n, damping) for p, n in sizes.items()}


def default_block(weights: int) -> int:
  """Return the largest power of two up to 128 within the memory limit.

  >>> default_block(2_000_000), default_block(11_000_000)
  (128, 16)
  """
  return 2 ** max(0, min(7, int(math.log2(ENTRIES / max(1, weights)))))


def default_work(
  weights: int, rounds: int | None, samples: int | None
) -> tuple[int, int]:
  """Return the rounds and the samples of each, chosen where they are None.

  Fewer rounds are better than fewer samples: a matrix of few samples is noise.

  >>> [default_work(n, None, None) for n in (4_000_000, 11_000_000, 32_000_000)]
  [(2, 256), (1, 192), (1, 64)]
  """
  room = NUMBERS // max(1, weights)
  if rounds is None:
    rounds = max(1, min(ROUNDS, room // (samples or SAMPLES)))
  if samples is None:
    samples = max(16, min(SAMPLES, room // rounds // 16 * 16))
  return rounds, samples


def _batch(block: int) -> int:
  """Return the number of blocks to process at a time."""
  return max(1, 2**19 // block**2)


@functools.partial(jax.jit, static_argnums=(1, 2))
def damped(products: Array, size: int, damping: float) -> tuple[Array, Array]:
  r"""Return the damped empirical Fisher matrices of the blocks of a weight.

  $F = \frac{1}{N} \sum_n g_n g_n^T + \lambda I$, with $\lambda$ a fraction of
  the mean of the diagonal.

  Args:
    products: Mean outer products of gradients, `[blocks, B, B]`.
    size: Number of weights.
    damping: That fraction.

  Returns:
    `(matrices, unit)`: `[blocks, B, B]` in units of the mean square gradient
    of the array, so that entries are near 1, and that unit, `()`.
  """
  traces = jnp.trace(products, axis1=1, axis2=2)
  square = jnp.sum(traces) / size
  unit = jnp.where(square > 0, square, 1.0)
  block = products.shape[-1]
  added = damping * (traces / (block * unit) + MIN_DAMPING)
  return products / unit + added[:, None, None] * jnp.eye(block), unit


def saliency(node: Masked, fishers: Array, unit: Array) -> Array:
  r"""Return $w_q^2 / (2 [F^{-1}]_{qq})$ of the kept weights.

  Args:
    node: The weight and its current mask.
    fishers: `[blocks, B, B]`, as `damped`.
    unit: As `damped`.

  Returns:
    Scores of the shape of the weight, -inf where it is pruned.
  """
  size = fishers.shape[-1]
  cut = [_cut(x, 0, size) for x in (node.w, node.mask)]
  found = unit * _in_parts(_saliencies, fishers, *cut)
  return jnp.where(node.mask, _join(found, node.mask.shape), -jnp.inf)


@jax.jit
def _saliencies(matrices: Array, w: Array, masks: Array) -> Array:
  return linalg.each(_block_saliency, matrices, w, masks)


def _block_saliency(matrix: Array, w: Array, mask: Array) -> Array:
  root = jnp.linalg.cholesky(_restrict(mask, matrix))
  half = jax.scipy.linalg.solve_triangular(root, jnp.eye(len(w)), lower=True)
  return w**2 / (2 * jnp.sum(half**2, axis=0))


def compensated(node: Masked, mask: Array, fishers: Array) -> Array:
  """Return the weight, updated for the positions that leave the mask.

  Args:
    node: The weight and its current mask.
    mask: The new mask, the shape of the weight.
    fishers: `[blocks, B, B]`, in any unit.

  Returns:
    The weight; pruned positions keep their value.
  """
  size = fishers.shape[-1]
  cut = [_cut(x, 0, size) for x in (node.w, node.mask, mask)]
  return _join(_in_parts(_updates, fishers, *cut), mask.shape)


@jax.jit
def _updates(matrices: Array, w: Array, before: Array, after: Array) -> Array:
  return linalg.each(_block_compensated, matrices, w, before, after)


def _block_compensated(
  matrix: Array, w: Array, before: Array, after: Array
) -> Array:
  target = jnp.where(after, matrix @ jnp.where(before & ~after, w, 0), 0)
  root = jnp.linalg.cholesky(_restrict(after, matrix))
  delta = jax.scipy.linalg.cho_solve((root, True), target)
  return w + jnp.where(after, delta, 0)


def _in_parts(fn: Callable[..., Array], *blocks: Array) -> Array:
  """Apply a function to equal parts, so that it is compiled once a size.

  Compiling factorizations for the shape of every weight would take longer than
  computing them. The last part is filled up with zeros, whose results, NaN
  where a matrix is singular, are left out.
  """
  count, size = len(blocks[0]), _batch(blocks[0].shape[-1])
  parts = []
  for start in range(0, count, size):
    part = [x[start : start + size] for x in blocks]
    short = (0, size - len(part[0]))
    parts.append(fn(*(_fill(x, short) for x in part)))
  return jnp.concatenate(parts)[:count]


def _fill(x: Array, short: tuple[int, int]) -> Array:
  return jnp.pad(x, [short, *[(0, 0)] * (x.ndim - 1)]) if any(short) else x


def _restrict(mask: Array, matrix: Array) -> Array:
  """Return the matrix of the kept weights, the identity elsewhere."""
  both = mask[:, None] & mask[None, :]
  return jnp.where(both, matrix, jnp.eye(len(mask)))


def _cut(x: Array, lead: int, block: int) -> Array:
  """Return blocks `[blocks, *lead, B]` of a weight, by output, 0-padded."""
  rows = jnp.swapaxes(x.reshape(*x.shape[:lead], -1, x.shape[-1]), -1, -2)
  flat = rows.reshape(*x.shape[:lead], -1)
  short = [(0, 0)] * lead + [(0, -flat.shape[-1] % block)]
  full = jnp.pad(flat, short)
  return jnp.moveaxis(full.reshape(*full.shape[:lead], -1, block), lead, 0)


def _join(blocks: Array, shape: tuple[int, ...]) -> Array:
  """Return a weight of a shape from the blocks of `_cut`."""
  return (
    blocks.ravel()[: math.prod(shape)].reshape(shape[-1], -1).T.reshape(shape)
  )


def _expect_count(where: str, what: str, count: int) -> None:
  if not isinstance(count, int) or count < 1:
    raise ValueError(f'{where}: expected {what} of 1 or more, got {count!r}.')
