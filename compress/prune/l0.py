"""L0 regularization: pruning with hard concrete gates."""

import math
from collections.abc import Collection
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from compress import tree
from compress.errors import expect_name, expect_schedule
from compress.method import Ctx, Method, expect_run
from compress.prune.masked import Masked, add_masks, map_latent
from compress.prune.selection import select_share
from compress.random import draw
from compress.schedule import Schedule, linear
from compress.tree import Array, Key, Params, Path

# The hard concrete distribution: temperature and ends of the stretched
# interval (Louizos+ 2018, section 4.1).
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


@struct.dataclass
class Gated(Masked):
  r"""A weight times hard concrete gates in [0, 1].

  Attributes:
    logits: $\log \alpha$ of each gate over `speed`, flat, so that weight
      decay does not apply: one for each weight or output channel.
    gate: The deterministic gates after the last step, the shape of `w` or
      `[channels]`.
    frozen: Whether the gates are frozen, `()` bool: then the gates are 1,
      `mask` holds the selection, and only the kept weights train.
    speed: Step size of the gates over that of the weights.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w', 'logits')
  inner: ClassVar[tuple[str, ...]] = ('w',)

  logits: Array
  gate: Array
  frozen: Array
  speed: float = struct.field(pytree_node=False)

  @property
  def log_alpha(self) -> Array:
    r"""$\log \alpha$ of each gate, the shape of `gate`."""
    return (self.speed * self.logits).reshape(self.gate.shape)

  @property
  def weights_per_gate(self) -> int:
    """Number of weights that each gate multiplies."""
    return self.mask.size // self.gate.size

  def decode(self) -> Array:
    """Return the weight with deterministic gates."""
    return self._gated(self.gate)

  def decode_training(self, key: Key | None) -> Array:
    """Return the weight with sampled gates, until they are frozen."""
    drawn = sample(tree.expect_key('prune.l0', key), self.log_alpha)
    return self._gated(jnp.where(self.frozen, self.gate, drawn))

  def _gated(self, gate: Array) -> Array:
    return jnp.where(self.mask & (gate > 0), gate * self.w, 0)

  def freeze(self) -> Any:
    """Return the masked weight; the node itself if quantized and not frozen."""
    if not tree.is_node(self.w):
      return self.decode()
    return super().freeze() if bool(self.frozen) else self


def sample(key: Key, log_alpha: Array) -> Array:
  r"""Return gates drawn from the hard concrete distribution.

  $s = \sigma((\log u - \log(1 - u) + \log \alpha) / \beta)$, stretched to
  $(\gamma, \zeta)$ and clipped to [0, 1] (Louizos+ 2018, arXiv 1712.01312,
  equations 10 and 11).
  """
  noise = draw(jax.random.logistic, key, log_alpha.shape, log_alpha.dtype)
  return _stretched((noise + log_alpha) / BETA)


def deterministic(log_alpha: Array) -> Array:
  """Return the gates without noise (equation 13); 0 below -2.4."""
  return _stretched(log_alpha)


def open_probability(log_alpha: Array) -> Array:
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
  freeze_at: float = 0.75,
  drop_rate: float = 0.05,
  speed: float = 10.0,
) -> Method:
  r"""Learn which weights to keep with a penalty on the number of open gates.

  Each weight, or group of weights $g$, is multiplied by a hard concrete gate,
  and the loss grows by $\lambda \frac{1}{n} \sum_g |g| P(z_g \neq 0)$, the
  expected share of the $n$ weights of all arrays whose gate is open (Louizos+
  2018, arXiv 1712.01312, equation 12 and section 2.3, which divides by the
  number of examples instead). All arrays share one
  budget. Once frozen, the gates are multiplied into the kept weights, which
  then train without noise.

  Args:
    strength: $\lambda$, the penalty of the dense network in units of the loss
      (nats), independent of its size; 0.1 to 1, with a sparsity 3 to 30.
    sparsity: Share of zeros among the weights at the end, in [0, 1): exact, or
      as little above as whole channels allow. The penalty is then that of the
      excess, $\max(0, \cdot - (1 - s))$, and the gates with the lowest
      $\log \alpha$ close. None closes those of equation 13.
    per: 'weight', or 'channel' for one gate for each output channel.
    schedule: Growth of the penalty or target over the run; by default linear
      over its first half.
    freeze_at: Fraction of the run at which the gates freeze, in (0, 1].
    drop_rate: Initial probability of a gate below one half, in (0, 0.5].
    speed: Step size of the gates over that of the weights, for an adaptive
      optimizer: from open to closed is 5.3, thousands of its usual steps.

  Returns:
    The method; it needs training. Each array keeps at least one gate.

  Raises:
    ValueError: If an argument is outside its range, the run has no steps, or
      a weight is pruned already or factorized.
  """
  where = 'prune.l0'
  amount = linear(0.0, 0.5) if schedule is None else schedule
  expect_schedule(where, amount)
  expect_name(where, 'granularity', per, ('weight', 'channel'))
  expect_freezing(where, strength, freeze_at, speed)
  select = select_share(where, sparsity or 0.0, 'global', 0.0)
  _expect_drop_rate(where, drop_rate)

  start = math.log((1 - drop_rate) / drop_rate) / speed

  def wrap(w: Array, mask: Array) -> Gated:
    return _gated(w, mask, per, start, speed)

  def init(params: Params, ctx: Ctx) -> Params:
    expect_run(where, ctx)
    params = add_masks(where, params, wrap)
    _expect_room(where, tree.find(Gated, params).values(), sparsity or 0.0)
    return params

  def update(params: Params, ctx: Ctx) -> Params:
    params = tree.map_nodes(Gated, lambda path, node: _follow(node), params)
    return jax.lax.cond(
      freezes_now(Gated, params, ctx, freeze_at), close, lambda p: p, params
    )

  def close(params: Params) -> Params:
    nodes = tree.find(Gated, params)
    scores = {path: node.log_alpha for path, node in nodes.items()}
    if sparsity is None:
      keep = {path: _open_gates(x) for path, x in scores.items()}
    elif per == 'channel':
      keep = _open_channels(nodes, sparsity)
    else:
      keep = select(scores, jnp.ones(()))
    return tree.map_nodes(
      Gated, lambda path, node: _closed(where, path, node, keep[path]), params
    )

  def loss(params: Params, ctx: Ctx) -> Array:
    nodes = tree.find(Gated, params)
    part, kept = amount(ctx.progress), _expected_share(nodes.values())
    cost = part * kept
    if sparsity is not None:
      cost = jnp.maximum(kept - (1 - sparsity * part), 0)
    return strength * jnp.where(frozen(Gated, params), 0, cost)

  return Method(init, update, loss)


def _gated(
  w: Array, mask: Array, per: str, start: float, speed: float
) -> Gated:
  """Return a node whose gates begin at `start`, in units of `speed`."""
  shape = w.shape if per == 'weight' else w.shape[-1:]
  logits = jnp.full(math.prod(shape), start, w.dtype)
  gate = jnp.ones(shape, w.dtype)
  return Gated(w, mask, logits, gate, jnp.zeros((), bool), speed)


def frozen(kind: type, params: Params) -> Array:
  """Return whether the nodes of a kind are frozen, `()` bool."""
  nodes = tree.find(kind, params).values()
  return jnp.all(jnp.array([True, *(node.frozen for node in nodes)]))


def freezes_now(kind: type, params: Params, ctx: Ctx, at: float) -> Array:
  """Return whether the nodes of a kind freeze at this step, `()` bool."""
  return (ctx.progress >= at) & ~frozen(kind, params)


def expect_freezing(
  where: str, strength: float, freeze_at: float, speed: float
) -> None:
  """Raise ValueError if the penalty, end or speed of noise is impossible."""
  for what, value in (('strength', strength), ('speed', speed)):
    if not 0 < value < math.inf:
      raise ValueError(f'{where}: expected a {what} above 0, got {value!r}.')
  if not 0 < freeze_at <= 1:
    raise ValueError(
      f'{where}: expected freeze_at in (0, 1], got {freeze_at!r}. It is the '
      'fraction of the run at which noise ends.'
    )


def _expect_drop_rate(where: str, drop_rate: float) -> None:
  if not 0 < drop_rate <= 0.5:
    raise ValueError(
      f'{where}: expected a drop_rate in (0, 0.5], got {drop_rate!r}. It '
      'is the initial probability of a closed gate.'
    )


def _follow(node: Gated) -> Gated:
  return node.replace(
    gate=jnp.where(node.frozen, node.gate, deterministic(node.log_alpha))
  )


def _closed(where: str, path: Path, node: Gated, keep: Array) -> Gated:
  """Return the frozen node, its gates multiplied into the kept weights."""
  # A selected gate may be 0: then its mean takes its place.
  gate = jnp.where(node.gate > 0, node.gate, jax.nn.sigmoid(node.log_alpha))
  mask = jnp.broadcast_to(keep, node.mask.shape)
  return map_latent(
    where, path, node, lambda w: jnp.where(mask, w * gate, w)
  ).replace(mask=mask, gate=jnp.ones_like(gate), frozen=jnp.ones((), bool))


def _open_gates(log_alpha: Array) -> Array:
  """Return the gates that equation 13 leaves open, at least one."""
  return (deterministic(log_alpha) > 0) | (log_alpha == jnp.max(log_alpha))


def _expected_share(nodes: Collection[Gated]) -> Array:
  """Return the expected share of weights with an open gate; 0 of none."""
  total = sum(
    (
      x.weights_per_gate * jnp.sum(open_probability(x.log_alpha)) for x in nodes
    ),
    jnp.zeros(()),
  )
  return total / max(1, sum(x.mask.size for x in nodes))


def _expect_room(where: str, nodes: Collection[Gated], sparsity: float) -> None:
  """Raise ValueError if a sparsity leaves less than a gate of each array."""
  total = sum(x.mask.size for x in nodes)
  least = sum(x.weights_per_gate for x in nodes)
  if total - least < round(sparsity * total):
    raise ValueError(
      f'{where}: expected a sparsity that leaves a gate of each array, got '
      f'{sparsity!r}. At most {(total - least) / total:.3g} is possible.'
    )


def _open_channels(
  nodes: dict[Path, Gated], sparsity: float
) -> dict[Path, Array]:
  r"""Return the gates to keep: the fewest closed that reach the sparsity.

  Gates close in the order of their $\log \alpha$; the last one of each array
  stays open.
  """
  if not nodes:
    return {}
  scores = [
    x.log_alpha.at[jnp.argmax(x.log_alpha)].set(jnp.inf) for x in nodes.values()
  ]
  sizes = [
    np.full(len(s), x.weights_per_gate)
    for s, x in zip(scores, nodes.values(), strict=True)
  ]
  goal = round(sparsity * sum(x.mask.size for x in nodes.values()))
  flat, weights = jnp.concatenate(scores), jnp.asarray(np.concatenate(sizes))
  order = jnp.argsort(flat, stable=True)
  before = jnp.cumsum(weights[order]) - weights[order]
  keep = jnp.zeros(flat.shape, bool).at[order].set(before >= goal)
  ends = np.cumsum([len(s) for s in scores])[:-1].tolist()
  return dict(zip(nodes, jnp.split(keep, ends), strict=True))
