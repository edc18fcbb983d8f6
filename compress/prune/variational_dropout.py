"""Sparse variational dropout: pruning of weights with a high noise ratio."""

from collections.abc import Iterable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from compress import tree
from compress.errors import expect_schedule
from compress.method import Ctx, Method, expect_run
from compress.prune.l0 import expect_freezing, freezes_now, frozen
from compress.prune.masked import Masked, add_masks
from compress.prune.selection import select_share
from compress.random import draw
from compress.schedule import Schedule, linear
from compress.tree import Array, Key, Params, Path

K1, K2, K3 = 0.63576, 1.87320, 1.48695  # equation 14
TINY = 1e-8  # under the square of a weight, so that its logarithm is finite


@struct.dataclass
class Noisy(Masked):
  r"""A weight with Gaussian noise, pruned where the noise dominates.

  Attributes:
    log_var: $\log \sigma^2$ of each weight over `speed`, flat, so that weight
      decay does not apply.
    frozen: Whether noise is off, `()` bool: then `mask` is constant and only
      the kept weights train.
    speed: Step size of the variances over that of the weights.
  """

  trainable: ClassVar[tuple[str, ...]] = ('w', 'log_var')
  inner: ClassVar[tuple[str, ...]] = ('w',)

  log_var: Array
  frozen: Array
  speed: float = struct.field(pytree_node=False)

  def decode_training(self, key: Key | None) -> Array:
    r"""Return $w + \sigma \epsilon$, or the masked weight if frozen."""
    key = tree.expect_key('prune.variational', key)
    sigma = jnp.exp(self.speed / 2 * self.log_var).reshape(self.mask.shape)
    noise = draw(jax.random.normal, key, sigma.shape, sigma.dtype)
    return jnp.where(self.frozen, self.decode(), self.w + sigma * noise)


def log_alpha(node: Noisy) -> Array:
  r"""Return $\log \alpha = \log \sigma^2 - \log w^2$ of each weight."""
  log_var = (node.speed * node.log_var).reshape(node.mask.shape)
  return log_var - jnp.log(tree.latent(node) ** 2 + TINY)


def divergence(log_alpha: Array) -> Array:
  r"""Return the divergence from the log-uniform prior, 0 in the limit of noise.

  $k_1 - k_1 \sigma(k_2 + k_3 \log \alpha) + \frac12 \log(1 + \alpha^{-1})$
  (Molchanov+ 2017, arXiv 1701.05369, equation 14, shifted to tend to 0). It is
  finite and strictly decreasing, so that nothing is clipped.

  Args:
    log_alpha: Any shape.

  Returns:
    The shape of `log_alpha`, in nats.

  >>> [round(float(divergence(jnp.float32(x))), 3) for x in (-8, 0, 8)]
  [4.636, 0.431, 0.0]
  """
  kept = K1 * jax.nn.sigmoid(-K2 - K3 * log_alpha)
  return kept + 0.5 * jax.nn.softplus(-log_alpha)


def variational(
  strength: float = 1.0,
  *,
  examples: int = 55_000,
  sparsity: float | None = None,
  threshold: float = 3.0,
  schedule: Schedule | None = None,
  freeze_at: float = 0.75,
  log_var: float = -10.0,
  speed: float = 10.0,
) -> Method:
  r"""Learn the noise of each weight and prune where the noise dominates.

  Weights are normal, $N(w, \sigma^2)$, and the loss grows by
  $\frac{\lambda}{N} \sum_i \mathrm{KL}(\alpha_i)$ with
  $\alpha = \sigma^2 / w^2$: the variational bound for a mean loss (Molchanov+
  2017, arXiv 1701.05369, equations 3, 4 and 14). The noise is sampled once per
  batch, not per example, so that gradients have a higher variance than with
  the paper's local reparameterization.

  Args:
    strength: $\lambda$; 1 is the bound, higher values prune more.
    examples: N, the size of the training set.
    sparsity: Exact share of zeros over all arrays, in [0, 1): the divergence
      is added until it is reached, and the noisiest weights are pruned. None
      prunes by the threshold only.
    threshold: $\log \alpha$ above which a weight is pruned; 3 is 95 % noise.
    schedule: Growth of the strength over the run; by default linear over its
      first half (warm-up).
    freeze_at: Fraction of the run at which noise ends, in (0, 1].
    log_var: Initial $\log \sigma^2$; -10 hardly changes a trained network.
    speed: Step size of the variances over that of the weights, for an adaptive
      optimizer: to the threshold is some 7, thousands of its usual steps.

  Returns:
    The method; it needs training. Each array keeps at least one weight.

  Raises:
    ValueError: If an argument is outside its range, the run has no steps, or
      a weight is pruned already.
  """
  where = 'prune.variational'
  amount = linear(0.0, 0.5) if schedule is None else schedule
  expect_schedule(where, amount)
  expect_freezing(where, strength, freeze_at, speed)
  select = select_share(where, sparsity or 0.0, 'global', 0.0)
  _check(where, examples, threshold, log_var)

  def wrap(w: Array, mask: Array) -> Noisy:
    start = jnp.full(w.size, log_var / speed, w.dtype)
    return Noisy(w, mask, start, jnp.zeros((), bool), speed)

  def init(params: Params, ctx: Ctx) -> Params:
    expect_run(where, ctx)
    return add_masks(where, params, wrap)

  def update(params: Params, ctx: Ctx) -> Params:
    params = tree.map_nodes(
      Noisy, lambda path, node: _followed(node, threshold), params
    )
    return jax.lax.cond(
      freezes_now(Noisy, params, ctx, freeze_at),
      remove_noise,
      lambda p: p,
      params,
    )

  def remove_noise(params: Params) -> Params:
    if sparsity is None:
      return _without_noise(params)
    nodes = tree.find(Noisy, params)
    scores = {path: -log_alpha(node) for path, node in nodes.items()}
    return _without_noise(params, select(scores, jnp.ones(())))

  def loss(params: Params, ctx: Ctx) -> Array:
    nodes = tree.find(Noisy, params).values()
    done = frozen(Noisy, params)
    if sparsity is not None:
      kept = sum((jnp.sum(node.mask) for node in nodes), jnp.zeros(()))
      done |= kept <= (1 - sparsity) * sum(node.mask.size for node in nodes)
    weight = strength / examples * amount(ctx.progress)
    return jnp.where(done, 0, weight * _total_divergence(nodes))

  return Method(init, update, loss)


def _followed(node: Noisy, threshold: float) -> Noisy:
  """Return the node without its noisiest weights; one at least is kept."""
  noise = log_alpha(node)
  kept = (noise < threshold) | (noise == jnp.min(noise))
  return node.replace(mask=jnp.where(node.frozen, node.mask, kept))


def _total_divergence(nodes: Iterable[Noisy]) -> Array:
  """Return the sum of the divergences of all weights."""
  return sum(
    (jnp.sum(divergence(log_alpha(node))) for node in nodes), jnp.zeros(())
  )


def _without_noise(
  params: Params, keep: dict[Path, Array] | None = None
) -> Params:
  """Freeze all nodes, with the masks in `keep` if given."""
  off = jnp.ones((), bool)

  def end(path: Path, node: Noisy) -> Noisy:
    return node.replace(mask=keep[path] if keep else node.mask, frozen=off)

  return tree.map_nodes(Noisy, end, params)


def _check(where: str, examples: int, threshold: float, log_var: float) -> None:
  if not examples >= 1:
    raise ValueError(
      f'{where}: expected a number of training examples, got {examples!r}.'
    )
  for what, value in (('threshold', threshold), ('log_var', log_var)):
    if not abs(value) <= 50:
      raise ValueError(
        f'{where}: expected a {what} in [-50, 50], got {value!r}. It is the '
        'logarithm of a variance.'
      )
