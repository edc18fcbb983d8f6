"""Learning-compression: weights penalized by their distance to compressed ones.

Any method whose `init` is a projection, which finds the nearest compressed
weight, can be trained in another way: the uncompressed network learns under a
penalty on the distance to its projection, which is updated in rounds.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct

from compress import kinds, tree
from compress.method import Ctx, Method
from compress.tree import Array, Compressed, Key, Params, Path

# Weights, context, penalty, nodes of the last round (None in the first) ->
# nodes nearest to the weights.
Project: TypeAlias = Callable[[Params, Ctx, Array, Params | None], Params]


@struct.dataclass
class Learning(Compressed):
  """An uncompressed weight and its compressed form.

  It decodes to the compressed form outside training, so that the network can
  be evaluated and packed at any time.

  Attributes:
    goal: The compressed form, a node.
    w: The uncompressed weight, `[...]`, of at least 32 bits.
    dual: Multiplier of `w = goal`, divided by the penalty, the shape of `w`.
    finetuning: Whether `goal` is trained instead of `w`, `()` bool.
  """

  trainable: ClassVar[tuple[str, ...]] = ('goal', 'w')
  inner: ClassVar[tuple[str, ...]] = ('goal',)
  decayed: ClassVar[tuple[str, ...]] = ('goal', 'w')

  goal: Any
  w: Array
  dual: Array
  finetuning: Array

  def decode(self) -> Array:
    """Return the compressed weight."""
    goal: Array = self.goal
    return goal

  def decode_training(self, key: Key | None) -> Array:
    """Return `w` until fine-tuning, then the compressed weight."""
    del key
    return jnp.where(self.finetuning, self.goal, self.w.astype(self.goal.dtype))

  def freeze(self) -> Any:
    """Return the compressed weight."""
    return self.goal

  def distance(self) -> Array:
    r"""Return $\|w - \Delta(\Theta) + u\|^2$, with a gradient in w only."""
    goal = tree.decode(jax.lax.stop_gradient(self.goal))
    return jnp.sum((self.w - goal + self.dual) ** 2)


class Rounds(NamedTuple):
  """Number of rounds, their times and penalties; see `lc`."""

  mu: float
  growth: float
  rounds: int
  finetune_at: float
  dual: bool

  def check(self, where: str) -> None:
    """Raise a ValueError if a value is out of range."""
    for right, what, got in (
      (0 < self.mu < float('inf'), 'a penalty above 0', self.mu),
      (self.growth >= 1, 'a growth from 1', self.growth),
      (
        type(self.rounds) is int and self.rounds >= 1,
        'rounds from 1',
        self.rounds,
      ),
      (0 < self.finetune_at <= 1, 'finetune_at in (0, 1]', self.finetune_at),
    ):
      if not right:
        raise ValueError(f'{where}: expected {what}, got {got!r}.')

  def round(self, ctx: Ctx) -> Array:
    """Return the number of C steps after round 0, `()`."""
    part = jnp.minimum(ctx.progress / self.finetune_at, 1.0)
    # The offset keeps rounds on a boundary from being lost to rounding.
    return jnp.floor(self.rounds * part + 1e-3)

  def penalty(self, at: Array) -> Array:
    """Return the penalty of a round."""
    return jnp.float32(self.mu) * self.growth**at


def lc(
  method: Method,
  *,
  mu: float = 1e-2,
  growth: float = 1.2,
  rounds: int = 30,
  finetune_at: float = 0.7,
  dual: bool = True,
) -> Method:
  r"""Train any projection by alternating learning and compression.

  $\min_{w, \Theta} L(w)$ subject to $w = \Delta(\Theta)$ by the augmented
  Lagrangian (Carreira-Perpinan & Idelbayev 2017, arXiv 1707.01209, figure 2).
  In round k, with $\mu_k = \mu_0 a^k$, the weights are trained under
  $\frac{\mu_k}{2} \|w - \Delta(\Theta) - \lambda / \mu_k\|^2$ (L step); then
  $w - \lambda / \mu_k$ is projected to give $\Theta$ (C step), and
  $\mu_k (w - \Delta(\Theta))$ is subtracted from $\lambda$. Round 0 is direct
  compression. The last round compresses $w$ itself; after it, from
  `finetune_at` on, the compressed weights are trained as `method` trains them.

  Args:
    method: A method or a chain: `prune.weights(0.9) >> quantize.uniform(4)`.
      Its `init` must project the weights it is given, to a structure that does
      not depend on their values (ranks as numbers).
    mu: First penalty $\mu_0$, above 0.
    growth: Factor $a$ of the penalty in each round, at least 1.
    rounds: Number of C steps, at least 1.
    finetune_at: Fraction of the run that the rounds take, in (0, 1].
    dual: Whether to use multipliers; otherwise a quadratic penalty.

  Returns:
    The method. The network is the compressed one whenever it is evaluated or
    packed.

  Raises:
    ValueError: If an argument is out of range, the method makes no nodes or
      depends on values or data, or another method that compresses comes before
      or after it.
  """
  plan = Rounds(mu, growth, rounds, finetune_at, dual)
  return learning('lc', method, _projection(method), plan)


def admm(
  method: Method,
  *,
  rho: float = 1.5e-3,
  rounds: int = 30,
  finetune_at: float = 0.7,
) -> Method:
  r"""Train any projection by ADMM: `lc` with a constant penalty.

  $L(W) + \frac{\rho}{2} \|W - Z + U\|^2$, $Z = \Pi(W + U)$,
  $U \leftarrow U + W - Z$ (Zhang+ 2018, arXiv 1804.03294, equations 6 to 9).

  Args:
    method: See `lc`.
    rho: The penalty, above 0.
    rounds: See `lc`.
    finetune_at: See `lc`.

  Returns:
    The method.

  Raises:
    ValueError: See `lc`.
  """
  plan = Rounds(rho, 1.0, rounds, finetune_at, True)
  return learning('admm', method, _projection(method), plan)


def _projection(method: Method) -> Project:
  return lambda params, ctx, mu, before: method.init(params, ctx)


def learning(
  where: str, method: Method, project: Project, plan: Rounds
) -> Method:
  """Return a method that alternates learning and compression.

  Args:
    where: Name of the method, for error messages.
    method: Its `update` and `loss` fine-tune the compressed weights.
    project: Finds the nearest compressed weights.
    plan: The rounds.

  Returns:
    The method.

  Raises:
    ValueError: If a value of the plan is out of range.
  """
  plan.check(where)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.ARRAYS, params)
    goals = project(params, ctx, plan.penalty(jnp.float32(0)), None)
    _expect_fixed(where, project, params, goals, ctx)
    weights = tree.paths(params)

    def wrap(path: Path, goal: Any) -> Any:
      if not tree.is_node(goal):
        return goal
      w = jnp.array(weights[path])
      w = w.astype(jnp.promote_types(w.dtype, jnp.float32))
      return Learning(goal, w, jnp.zeros_like(w), jnp.bool_(False))

    return tree.map_paths(wrap, goals)

  def update(params: Params, ctx: Ctx) -> Params:
    before = ctx._replace(step=ctx.step - 1)
    at, was = plan.round(ctx), plan.round(before)
    done = was >= plan.rounds
    _expect_last(where, project, params, ctx)
    params = jax.lax.cond(
      ~done & (at > was),
      lambda p: _compressed(p, ctx, project, plan, was),
      lambda p: p,
      params,
    )
    return jax.lax.cond(
      done,
      lambda p: _with_goals(p, method.update(_goals(p), ctx)),
      lambda p: p,
      params,
    )

  def loss(params: Params, ctx: Ctx) -> Array:
    at = plan.round(ctx)
    mu = jnp.where(at < plan.rounds, plan.penalty(at), 0.0)
    nodes = tree.find(Learning, params).values()
    penalty = mu / 2 * sum((x.distance() for x in nodes), jnp.zeros(()))
    return penalty + method.loss(_goals(params), ctx)

  return Method(init, update, loss)


def _compressed(
  params: Params, ctx: Ctx, project: Project, plan: Rounds, was: Array
) -> Params:
  """Take a C step at the end of a round, and update the multipliers."""
  nodes = tree.find(Learning, params)
  last = was + 1 >= plan.rounds
  # Multipliers need not have converged, and are not compensated for later.
  weights = _uncompressed(params, jnp.where(last, 0.0, 1.0))
  goals = project(weights, ctx, plan.penalty(was), _goals(params))

  def follow(path: Path, goal: Any) -> Any:
    if path not in nodes:
      return goal
    node = nodes[path]
    dual = node.dual
    if plan.dual:  # stored divided by the penalty, which has grown
      dual = (dual + node.w - tree.decode(goal)) / plan.growth
    return node.replace(goal=goal, dual=dual, finetuning=last)

  return tree.map_paths(follow, goals)


def _uncompressed(params: Params, part: Array | float = 1.0) -> Params:
  """Return the weights that C steps compress, with part of the multipliers."""

  def uncompressed(path: Path, x: Any) -> Any:
    if not isinstance(x, Learning):
      return x
    dtype = x.goal.dtype
    return (x.w + part * x.dual).astype(dtype)

  return tree.map_paths(uncompressed, params)


def _goals(params: Params) -> Params:
  """Return the compressed network."""
  return tree.map_paths(
    lambda _, x: x.goal if isinstance(x, Learning) else x, params
  )


def _with_goals(params: Params, goals: Params) -> Params:
  """Return the network with other compressed weights."""
  found = tree.paths(goals)
  return tree.map_paths(
    lambda path, x: (
      x.replace(goal=found[path]) if isinstance(x, Learning) else found[path]
    ),
    params,
  )


def _expect_fixed(
  where: str, project: Project, params: Params, goals: Params, ctx: Ctx
) -> None:
  """Refuse methods that make no nodes or whose structure depends on values."""
  if not tree.find(Compressed, goals):
    raise ValueError(
      f'{where}: expected a method that compresses weights, got one without '
      'nodes. Chain it: "lc(...) >> ...".'
    )
  within = ctx._replace(probe=None)
  try:
    again = jax.eval_shape(
      lambda p: project(p, within, jnp.zeros(()), goals), params
    )
  except (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
  ) as e:
    raise ValueError(
      f'{where}: expected a method whose structure does not depend on weights '
      'or data, got one that does. Give ranks and amounts as numbers.'
    ) from e
  _expect_same(where, again, goals)


def _expect_last(
  where: str, project: Project, params: Params, ctx: Ctx
) -> None:
  """Refuse goals that a later method of the chain has compressed again."""
  fresh = jax.eval_shape(
    lambda p: project(_uncompressed(p), ctx, jnp.zeros(()), _goals(p)), params
  )
  _expect_same(where, fresh, _goals(params))


def _expect_same(where: str, fresh: Params, goals: Params) -> None:
  one: Any = jax.tree.structure(fresh)
  if one != jax.tree.structure(goals):
    raise ValueError(
      f'{where}: expected no method that compresses after it in a chain. Put '
      f'it inside: "{where}(... >> ...)".'
    )
