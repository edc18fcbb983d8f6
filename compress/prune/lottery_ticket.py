"""Lottery tickets: iterative magnitude pruning with rewinding."""

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.method import Ctx, Method, expect_run
from compress.prune import importance
from compress.prune.masked import (
  Masked,
  add_masks,
  map_latent,
  masked_scores,
  replace_masks,
)
from compress.prune.selection import select_share
from compress.tree import Array, Params, Path


@struct.dataclass
class Ticket(Masked):
  """A masked weight that stores its value at the rewind point.

  Attributes:
    w: As `Masked`.
    mask: As `Masked`.
    origin: The weight at the rewind point, the shape of `mask`.
  """

  origin: Array


def lottery_ticket(
  sparsity: float,
  *,
  rewind_at: float = 0.05,
  rounds: int = 5,
  scope: str = 'layer',
  floor: float = 0.01,
) -> Method:
  r"""Find a lottery ticket by magnitude pruning with rewinding.

  The weights at the rewind point are stored. The rest of the run is divided
  into `rounds + 1` equal parts. After part k the smallest weights are pruned
  until a share $(1 - s)^{k / n}$ is left, and the others are reset to their
  values at the rewind point; the last part trains the ticket (Frankle+ 2019,
  arXiv 1912.05671, section 4; Frankle & Carbin 2019, arXiv 1803.03635).

  For runs from randomly initialized weights. Only the masked weights are
  reset: biases, norms, the optimizer state and the learning rate are not, so
  the learning rate should be constant.

  Args:
    sparsity: Share of zeros among the weights at the end, in [0, 1); exact.
    rewind_at: Rewind point as a fraction of the run; 0 is the start.
    rounds: Number of pruning rounds, n.
    scope: 'layer' or 'global', as `prune.weights`.
    floor: As `prune.weights`.

  Returns:
    The method.

  Raises:
    ValueError: If the sparsity, rewind point, rounds, scope or floor is
      impossible, or the run has no steps.
  """
  where = 'prune.lottery_ticket'
  select = select_share(where, sparsity, scope, floor)
  if not 0 <= rewind_at < 1:
    raise ValueError(
      f'{where}: expected a rewind point in [0, 1), got {rewind_at!r}. It is a '
      'fraction of the run.'
    )
  if not isinstance(rounds, int) or rounds < 1:
    raise ValueError(
      f'{where}: expected 1 round or more, got {rounds!r}. Each trains, prunes '
      'and rewinds.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    expect_run(where, ctx)
    # A copy: a step that donates its state may donate a buffer only once.
    return add_masks(where, params, lambda w, m: Ticket(w, m, jnp.copy(w)))

  def update(params: Params, ctx: Ctx) -> Params:
    before = ctx._replace(step=ctx.step - 1).progress
    reached = (before < rewind_at) & (ctx.progress >= rewind_at)
    params = jax.lax.cond(reached, store_origin, lambda p: p, params)
    done, did = (_rounds(p, rewind_at, rounds) for p in (ctx.progress, before))
    part = jnp.float32(cumulative_shares(sparsity, rounds))[done]
    return jax.lax.cond(
      done > did, lambda p: prune_and_rewind(p, ctx, part), lambda p: p, params
    )

  def store_origin(params: Params) -> Params:
    def visit(path: Path, node: Ticket) -> Ticket:
      return node.replace(origin=tree.latent(node))

    return tree.map_nodes(Ticket, visit, params)

  def prune_and_rewind(params: Params, ctx: Ctx, part: Array) -> Params:
    def visit(path: Path, node: Ticket) -> Ticket:
      return map_latent(where, path, node, lambda w: node.origin)

    masks = select(masked_scores(params, importance.magnitude, ctx), part)
    return tree.map_nodes(Ticket, visit, replace_masks(params, masks))

  return Method(init, update)


def cumulative_shares(sparsity: float, rounds: int) -> list[float]:
  r"""Return the share of the target that is pruned after each round.

  $(1 - (1 - s)^{k/n}) / s$ for k = 0 to n: each round prunes the same share of
  the remaining weights.

  >>> [round(x * 0.75, 6) for x in cumulative_shares(0.75, 2)]
  [0.0, 0.5, 0.75]
  """
  if not sparsity:
    return [0.0] * rounds + [1.0]
  within = (k / rounds for k in range(rounds))
  return [*((1 - (1 - sparsity) ** x) / sparsity for x in within), 1.0]


def _rounds(progress: Array, rewind_at: float, rounds: int) -> Array:
  """Return how many rounds are done."""
  done = (rounds + 1) * (progress - rewind_at) / (1 - rewind_at)
  # Half a thousandth, so that a step on the border counts despite rounding.
  return jnp.clip(jnp.floor(done + 0.0005), 0, rounds).astype(jnp.int32)
