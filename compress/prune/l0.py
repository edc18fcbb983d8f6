"""Pruning by random gates: the number of weights as a penalty (L0)."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.method import Ctx, Method
from compress.prune.masked import (
  Masked,
  Scores,
  expect_name,
  expect_run,
  expect_schedule,
  masked,
  moved,
  share,
)
from compress.random import draw
from compress.schedule import Schedule, linear
from compress.tree import Array, Key, Params, Path

# The hard concrete distribution: temperature and ends of the stretched
# interval (Louizos+ 2018, section 4.1).
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


@struct.dataclass
class Gated(Masked):
  r"""A weight times random gates in [0, 1] that end at exactly 0 or 1.

  Attributes:
    logits: $\log \alpha$ of each gate over `speed`, flat, so that weight
      decay leaves it alone: one a weight or one an output channel.
    gate: The gates without noise as of the last step, the shape of `w` or
      `[channels]`.
    settled: True once the gates are at rest, `()` bool: then `mask` holds the
      choice, the gates are 1, and only the kept weights are trained on.
    speed: How much faster than weights the gates move.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w', 'logits')
  inner: ClassVar[tuple[str, ...]] = ('w',)

  logits: Array
  gate: Array
  settled: Array
  speed: float = struct.field(pytree_node=False)

  @property
  def log_alpha(self) -> Array:
    """How open each gate is, the shape of `gate`; 0 is half."""
    return (self.speed * self.logits).reshape(self.gate.shape)

  def decode(self, key: Key | None) -> Array:
    """Return the gated weight: sampled with a key, at rest without."""
    gate = self.gate
    if key is not None:
      gate = jnp.where(self.settled, gate, sample(key, self.log_alpha))
    return jnp.where(self.mask & (gate > 0), gate * self.w, 0)

  def freeze(self) -> Any:
    """Return the zeroed weight, or itself where a grid meets open gates."""
    if not tree.is_node(self.w):
      return self.decode(None)
    return super().freeze() if bool(self.settled) else self


def sample(key: Key, log_alpha: Array) -> Array:
  r"""Return gates drawn from the hard concrete distribution.

  $s = \sigma((\log u - \log(1 - u) + \log \alpha) / \beta)$, stretched to
  $(\gamma, \zeta)$ and clipped to [0, 1] (Louizos+ 2018, arXiv 1712.01312,
  equations 10 and 11).
  """
  noise = draw(jax.random.logistic, key, log_alpha.shape, log_alpha.dtype)
  return _stretched((noise + log_alpha) / BETA)


def rest(log_alpha: Array) -> Array:
  """Return the gates without noise (equation 13); closed below -2.4."""
  return _stretched(log_alpha)


def chance(log_alpha: Array) -> Array:
  r"""Return the probability that a gate is not 0 (equation 12).

  $\sigma(\log \alpha - \beta \log(-\gamma / \zeta))$.
  """
  return jax.nn.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def _stretched(x: Array) -> Array:
  return jnp.clip(jax.nn.sigmoid(x) * (ZETA - GAMMA) + GAMMA, 0, 1)


def l0(
  strength: float,
  *,
  sparsity: float | None = None,
  per: str = 'weight',
  schedule: Schedule | None = None,
  settle: float = 0.75,
  drop: float = 0.05,
  speed: float = 10.0,
) -> Method:
  r"""Learn which weights to keep by random gates whose number is penalised.

  Each weight is multiplied by a hard concrete gate, and the loss grows by
  $\lambda \frac{1}{n} \sum_i P(z_i \neq 0)$, the expected share of the open
  among the $n$ gates of all arrays (Louizos+ 2018, arXiv 1712.01312, equation
  12, which divides by the number of examples instead). Arrays compete for
  what is kept. Once settled, the gates are folded into the weights that they
  keep, no noise is left, and these are trained on.

  Args:
    strength: $\lambda$, the price of the whole network in units of the loss
      (nats), whatever its size; 0.1 to 1, with a sparsity 3 to 30.
    sparsity: Exact share of gates that end closed, in [0, 1). The price is
      then that of the excess, $\max(0, \cdot - (1 - s))$, and those least
      open go. None closes what equation 13 does.
    per: 'weight', or 'channel' for a gate an output channel.
    schedule: How price or target grow over the run; by default evenly over
      its first half.
    settle: Fraction of the run at which the gates come to rest, in (0, 1].
    drop: Probability by which gates start out below a half, in (0, 0.5].
    speed: How much faster than weights gates move under an adaptive
      optimiser: from open to closed is 5.3, thousands of its usual steps.

  Returns:
    The method; it needs a run. Keep at least one gate of each array.

  Raises:
    ValueError: If an argument is outside its range, the run has no steps, a
      weight is pruned already, or is factors that no gate can be folded into.
  """
  where = 'prune.l0'
  amount = linear(0.0, 0.5) if schedule is None else schedule
  expect_schedule(where, amount)
  expect_name(where, 'granularity', per, ('weight', 'channel'))
  expect_settling(where, strength, settle, speed)
  choose = share(where, sparsity or 0.0, 'global', 0.0)
  if not 0 < drop <= 0.5:
    raise ValueError(
      f'{where}: expected a drop in (0, 0.5], got {drop!r}. It is the '
      'probability by which gates start out closed.'
    )

  def wrap(w: Array, mask: Array) -> Gated:
    shape = w.shape if per == 'weight' else w.shape[-1:]
    start = math.log((1 - drop) / drop) / speed
    logits = jnp.full(math.prod(shape), start, w.dtype)
    gate = jnp.ones(shape, w.dtype)
    return Gated(w, mask, logits, gate, jnp.zeros((), bool), speed)

  def init(params: Params, ctx: Ctx) -> Params:
    expect_run(where, ctx)
    return masked(where, params, wrap)

  def update(params: Params, ctx: Ctx) -> Params:
    params = tree.map_nodes(Gated, lambda path, node: _follow(node), params)
    return jax.lax.cond(
      settling(Gated, params, ctx, settle), close, lambda p: p, params
    )

  def close(params: Params) -> Params:
    scores = {p: x.log_alpha for p, x in tree.find(Gated, params).items()}
    if sparsity is None:
      keep = {p: (rest(x) > 0) | (x == jnp.max(x)) for p, x in scores.items()}
    else:
      keep = choose(scores, jnp.ones(()))
    return tree.map_nodes(
      Gated, lambda path, node: _closed(where, path, node, keep[path]), params
    )

  def loss(params: Params, ctx: Ctx) -> Array:
    nodes = tree.find(Gated, params)
    part = amount(ctx.progress)
    kept = _mean({path: chance(x.log_alpha) for path, x in nodes.items()})
    if sparsity is None:
      cost = part * kept
    else:
      cost = jnp.maximum(kept - (1 - sparsity * part), 0)
    return strength * jnp.where(settled(Gated, params), 0, cost)

  return Method(init, update, loss)


def settled(kind: type, params: Params) -> Array:
  """Tell whether the nodes of a kind are at rest, `()` bool."""
  nodes = tree.find(kind, params).values()
  return jnp.all(jnp.array([True, *(node.settled for node in nodes)]))


def settling(kind: type, params: Params, ctx: Ctx, at: float) -> Array:
  """Tell whether it is time for nodes of a kind to come to rest."""
  return (ctx.progress >= at) & ~settled(kind, params)


def expect_settling(
  where: str, strength: float, settle: float, speed: float
) -> None:
  """Raise ValueError if the price, end or speed of noise is impossible."""
  for what, value in (('strength', strength), ('speed', speed)):
    if not 0 < value < math.inf:
      raise ValueError(f'{where}: expected a {what} above 0, got {value!r}.')
  if not 0 < settle <= 1:
    raise ValueError(
      f'{where}: expected settle in (0, 1], got {settle!r}. It is the '
      'fraction of the run at which noise ends.'
    )


def _follow(node: Gated) -> Gated:
  return node.replace(
    gate=jnp.where(node.settled, node.gate, rest(node.log_alpha))
  )


def _closed(where: str, path: Path, node: Gated, keep: Array) -> Gated:
  """Return the node at rest, its gates folded into what is kept."""
  # A gate may be kept that would be closed: then its mean opens it a little.
  gate = jnp.where(node.gate > 0, node.gate, jax.nn.sigmoid(node.log_alpha))
  mask = jnp.broadcast_to(keep, node.mask.shape)
  return moved(
    where, path, node, lambda w: jnp.where(mask, w * gate, w)
  ).replace(mask=mask, gate=jnp.ones_like(gate), settled=jnp.ones((), bool))


def _mean(scores: Scores) -> Array:
  """Return the mean over all arrays together; 0 of none."""
  total = sum((jnp.sum(x) for x in scores.values()), jnp.zeros(()))
  return total / max(1, sum(x.size for x in scores.values()))
