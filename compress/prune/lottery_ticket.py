"""Lottery tickets: prune what training made small, and start again."""

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.method import Ctx, Method
from compress.prune import importance
from compress.prune.masked import (
  Masked,
  expect_run,
  masked,
  moved,
  ranked,
  remasked,
  share,
)
from compress.tree import Array, Params, Path


@struct.dataclass
class Ticket(Masked):
  """A masked weight that remembers where it was at the rewind point.

  Attributes:
    w: As `Masked`.
    mask: As `Masked`.
    origin: The weight at the rewind point, the shape of `mask`.
  """

  origin: Array


def lottery_ticket(
  sparsity: float,
  *,
  at: float = 0.05,
  rounds: int = 5,
  scope: str = 'layer',
  floor: float = 0.01,
) -> Method:
  r"""Find a lottery ticket by magnitude pruning with rewinding.

  The weights at the rewind point are kept aside. What is left of the run is
  cut into `rounds + 1` equal parts; after part k of them the smallest weights
  go, until a share $(1 - s)^{k / n}$ is left, and the survivors return to the
  rewind point; the last part trains the ticket (Frankle+ 2019, arXiv
  1912.05671, section 4; Frankle & Carbin 2019, arXiv 1803.03635).

  For runs from fresh weights. Only the masked weights return: biases, norms
  and the optimiser go on, and so does the learning rate, which should be
  constant for that reason.

  Args:
    sparsity: Share of zeros among the weights at the end, in [0, 1); exact.
    at: Fraction of the run at which the rewind point lies; 0 is the start.
    rounds: How often is pruned, n.
    scope: 'layer' or 'global', as `prune.weights`.
    floor: As `prune.weights`.

  Returns:
    The method.

  Raises:
    ValueError: If the sparsity, rewind point, rounds, scope or floor is
      impossible, or the run has no steps.
  """
  where = 'prune.lottery_ticket'
  choose = share(where, sparsity, scope, floor)
  if not 0 <= at < 1:
    raise ValueError(
      f'{where}: expected a rewind point in [0, 1), got {at!r}. It is a '
      'fraction of the run.'
    )
  if not isinstance(rounds, int) or rounds < 1:
    raise ValueError(
      f'{where}: expected 1 round or more, got {rounds!r}. Each trains, prunes '
      'and rewinds.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    expect_run(where, ctx)
    # A copy: a step that donates its state takes each buffer once.
    return masked(where, params, lambda w, m: Ticket(w, m, jnp.copy(w)))

  def update(params: Params, ctx: Ctx) -> Params:
    before = ctx._replace(step=ctx.step - 1).progress
    begun = (before < at) & (ctx.progress >= at)
    params = jax.lax.cond(begun, keep_aside, lambda p: p, params)
    done, did = (_rounds(p, at, rounds) for p in (ctx.progress, before))
    part = jnp.float32(shares(sparsity, rounds))[done]
    return jax.lax.cond(
      done > did, lambda p: rewound(p, ctx, part), lambda p: p, params
    )

  def keep_aside(params: Params) -> Params:
    def visit(path: Path, node: Ticket) -> Ticket:
      return node.replace(origin=tree.latent(node))

    return tree.map_nodes(Ticket, visit, params)

  def rewound(params: Params, ctx: Ctx, part: Array) -> Params:
    def visit(path: Path, node: Ticket) -> Ticket:
      return moved(where, path, node, lambda w: node.origin)

    masks = choose(ranked(params, importance.magnitude, ctx), part)
    return tree.map_nodes(Ticket, visit, remasked(params, masks))

  return Method(init, update)


def shares(sparsity: float, rounds: int) -> list[float]:
  r"""Return the share of the whole amount that is pruned after each round.

  $(1 - (1 - s)^{k/n}) / s$ for k = 0 to n: each round takes the same share of
  what the one before left.

  >>> [round(x * 0.75, 6) for x in shares(0.75, 2)]
  [0.0, 0.5, 0.75]
  """
  if not sparsity:
    return [0.0] * rounds + [1.0]
  within = (k / rounds for k in range(rounds))
  return [*((1 - (1 - sparsity) ** x) / sparsity for x in within), 1.0]


def _rounds(progress: Array, at: float, rounds: int) -> Array:
  """Return how many rounds are through."""
  done = (rounds + 1) * (progress - at) / (1 - at)
  # Half a thousandth, so that a step on the border counts despite rounding.
  return jnp.clip(jnp.floor(done + 0.0005), 0, rounds).astype(jnp.int32)
