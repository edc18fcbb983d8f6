"""Pruning without retraining: what is left makes up for what goes."""

import functools
import math

import jax
import jax.numpy as jnp

from compress import tree
from compress.method import Ctx, Method
from compress.prune import importance
from compress.prune.lottery_ticket import shares
from compress.prune.masked import Masked, masked, remasked, share
from compress.tree import Array, Params, Path

AT_ONCE = 32  # blocks solved together
LEAST = 1e-6  # part of the damping that does not vanish with the gradients


def obs(
  sparsity: float,
  *,
  scope: str = 'layer',
  block: int = 128,
  samples: int = 256,
  damping: float = 0.01,
  rounds: int = 4,
  floor: float = 0.01,
) -> Method:
  r"""Prune once by curvature and move the remaining weights to make up for it.

  Optimal Brain Surgeon on the empirical Fisher matrix $F$ of blocks of weights
  (WoodFisher: Singh & Alistarh 2020, arXiv 2004.14340, equations 5 to 9). The
  score is $w_q^2 / (2 [F^{-1}]_{qq})$. The weights $P$ of a block that go
  together move the rest by

  $\delta = -F^{-1} E_P (E_P^T F^{-1} E_P)^{-1} w_P$,

  which is $F_{KK}^{-1} F_{KP} w_P$ on the kept ones $K$: for one weight the
  paper's move, and for several the exact one where the paper adds up single
  moves. The inverse is that of the paper's rank-one recursion, found by
  factoring F, which is cheaper for blocks smaller than N. A block holds
  consecutive inputs of an output.

  Args:
    sparsity: Share of zeros among the weights, in [0, 1); exact.
    scope: 'layer' or 'global', as `prune.weights`.
    block: Weights in a block, B. Time grows with B^2 a weight.
    samples: Calibration examples whose gradients make F, N. All gradients are
      held at once: N times the size of the network.
    damping: What is added to the diagonal of F, as a part of its mean.
    rounds: In how many steps the share is reached, each with new gradients
      and taking the same share of what the one before left.
    floor: As `prune.weights`.

  Returns:
    The method; it changes nothing after `init`, so training may follow.

  Raises:
    ValueError: If an argument is impossible or there is no calibration data.
  """
  where = 'prune.obs'
  choose = share(where, sparsity, scope, floor)
  counts = {'block': block, 'samples': samples, 'rounds': rounds}
  for what, count in counts.items():
    _expect_count(where, what, count)
  if not 0 < damping < float('inf'):
    raise ValueError(
      f'{where}: expected a positive damping, got {damping!r}. It is a part of '
      'the mean of the diagonal, as 0.01.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    params = masked(where, params)
    for part in shares(sparsity, rounds)[1:]:
      params = once(params, ctx, jnp.float32(part))
    return params

  def once(params: Params, ctx: Ctx, part: Array) -> Params:
    nodes = tree.find(Masked, params)
    sample = importance.samples(where, params, ctx, samples)
    fishers = {
      path: fisher(sample(path, node.w), block, damping)
      for path, node in nodes.items()
    }
    worth = {p: saliency(node, *fishers[p]) for p, node in nodes.items()}
    masks = choose(worth, part)

    def settle(path: Path, node: Masked) -> Masked:
      return node.replace(w=settled(node, masks[path], fishers[path][0]))

    return remasked(tree.map_nodes(Masked, settle, params), masks)

  return Method(init)


@functools.partial(jax.jit, static_argnums=(1, 2))
def fisher(grads: Array, block: int, damping: float) -> tuple[Array, Array]:
  r"""Return the damped empirical Fisher matrices of the blocks of a weight.

  $F = \frac{1}{N} \sum_n g_n g_n^T + \lambda I$, with $\lambda$ a part of the
  mean of the diagonal.

  Args:
    grads: Gradients of single examples, `[examples, *shape]`.
    block: Weights in a block, B.
    damping: That part.

  Returns:
    `(matrices, unit)`: `[blocks, B, B]` in units of the mean square gradient
    of the array, which keeps the numbers near 1, and that unit, `()`.
  """
  square = jnp.mean(grads**2)
  unit = jnp.where(square > 0, square, 1.0)

  def visit(g: Array) -> Array:
    matrix = g.T @ g / (len(g) * unit)
    added = damping * (jnp.trace(matrix) / block + LEAST)
    return matrix + added * jnp.eye(block)

  return jax.lax.map(visit, _cut(grads, 1, block), batch_size=AT_ONCE), unit


@jax.jit
def saliency(node: Masked, fishers: Array, unit: Array) -> Array:
  r"""Return $w_q^2 / (2 [F^{-1}]_{qq})$ among what is kept.

  Args:
    node: The weight and what is pruned of it already.
    fishers: `[blocks, B, B]`, as `fisher`.
    unit: As `fisher`.

  Returns:
    Scores of the shape of the weight, -inf at what is pruned.
  """

  def visit(parts: tuple[Array, Array, Array]) -> Array:
    matrix, w, mask = parts
    root = jnp.linalg.cholesky(_among(mask, matrix))
    half = jax.scipy.linalg.solve_triangular(root, jnp.eye(len(w)), lower=True)
    return w**2 * unit / (2 * jnp.sum(half**2, axis=0))

  size = fishers.shape[-1]
  cut = (_cut(x, 0, size) for x in (node.w, node.mask))
  found = jax.lax.map(visit, (fishers, *cut), batch_size=AT_ONCE)
  return jnp.where(node.mask, _join(found, node.mask.shape), -jnp.inf)


@jax.jit
def settled(node: Masked, mask: Array, fishers: Array) -> Array:
  """Return the weight after what leaves the mask has moved the rest.

  Args:
    node: The weight and what is pruned of it already.
    mask: What is kept from now on, the shape of the weight.
    fishers: `[blocks, B, B]`, in any unit.

  Returns:
    The weight; what is pruned keeps its value.
  """

  def visit(parts: tuple[Array, Array, Array, Array]) -> Array:
    matrix, w, before, after = parts
    force = jnp.where(after, matrix @ jnp.where(before & ~after, w, 0), 0)
    root = jnp.linalg.cholesky(_among(after, matrix))
    move = jax.scipy.linalg.cho_solve((root, True), force)
    return w + jnp.where(after, move, 0)

  size = fishers.shape[-1]
  cut = (_cut(x, 0, size) for x in (node.w, node.mask, mask))
  found = jax.lax.map(visit, (fishers, *cut), batch_size=AT_ONCE)
  return _join(found, mask.shape)


def _among(mask: Array, matrix: Array) -> Array:
  """Return the matrix of what is kept, that of the rest being the identity."""
  both = mask[:, None] & mask[None, :]
  return jnp.where(both, matrix, jnp.eye(len(mask)))


def _cut(x: Array, lead: int, block: int) -> Array:
  """Return blocks `[blocks, *lead, B]` of a weight, by output, 0 at the end."""
  rows = jnp.swapaxes(x.reshape(*x.shape[:lead], -1, x.shape[-1]), -1, -2)
  flat = rows.reshape(*x.shape[:lead], -1)
  short = [(0, 0)] * lead + [(0, -flat.shape[-1] % block)]
  full = jnp.pad(flat, short)
  return jnp.moveaxis(full.reshape(*full.shape[:lead], -1, block), lead, 0)


def _join(blocks: Array, shape: tuple[int, ...]) -> Array:
  """Undo `_cut` of a weight."""
  return (
    blocks.ravel()[: math.prod(shape)].reshape(shape[-1], -1).T.reshape(shape)
  )


def _expect_count(where: str, what: str, count: int) -> None:
  if not isinstance(count, int) or count < 1:
    raise ValueError(f'{where}: expected {what} of 1 or more, got {count!r}.')
