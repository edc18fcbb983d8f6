"""Learning-compression: free weights are pulled towards compressed ones.

Any method whose `init` finds what is nearest to a weight (a projection) gets a
second way to be trained: the network learns freely under a penalty on the
distance to its compressed form, which is found anew from time to time.
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
  """A free weight and the compressed one that it is pulled towards.

  Outside training it is the compressed one, so that what is evaluated and
  packed can always be had.

  Attributes:
    goal: The compressed weight.
    w: The weight that learns, `[...]`, of at least 32 bits.
    dual: Multiplier of `w = goal`, divided by the penalty, the shape of `w`.
    settled: Whether the goal itself is what trains, `()` bool.
  """

  trainable: ClassVar[tuple[str, ...]] = ('goal', 'w')
  inner: ClassVar[tuple[str, ...]] = ('goal',)
  decayed: ClassVar[tuple[str, ...]] = ('goal', 'w')

  goal: Any
  w: Array
  dual: Array
  settled: Array

  @property
  def needs_key(self) -> bool:
    """Whether training decodes to another array: to the free weight."""
    return True

  def decode(self, key: Key | None) -> Array:
    """Return the free weight in training, until it has settled."""
    if key is None:
      goal: Array = self.goal
      return goal
    return jnp.where(self.settled, self.goal, self.w.astype(self.goal.dtype))

  def freeze(self) -> Any:
    """Return the compressed weight."""
    return self.goal

  def apart(self) -> Array:
    r"""Return $\|w - \Delta(\Theta) + u\|^2$; only the weight feels it."""
    goal = tree.decode(jax.lax.stop_gradient(self.goal))
    return jnp.sum((self.w - goal + self.dual) ** 2)


class Pace(NamedTuple):
  """Growth of the penalty and times of the rounds; see `lc`."""

  mu: float
  growth: float
  rounds: int
  settle: float
  dual: bool

  def check(self, where: str) -> None:
    """Raise a ValueError if something is impossible."""
    for right, what, got in (
      (0 < self.mu < float('inf'), 'a penalty above 0', self.mu),
      (self.growth >= 1, 'a growth from 1', self.growth),
      (
        type(self.rounds) is int and self.rounds >= 1,
        'rounds from 1',
        self.rounds,
      ),
      (0 < self.settle <= 1, 'a settle in (0, 1]', self.settle),
    ):
      if not right:
        raise ValueError(f'{where}: expected {what}, got {got!r}.')

  def round(self, ctx: Ctx) -> Array:
    """Return how often weights were compressed since the start, `()`."""
    part = jnp.minimum(ctx.progress / self.settle, 1.0)
    # A thousandth, so that a round on the border counts despite rounding.
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
  settle: float = 0.7,
  dual: bool = True,
) -> Method:
  r"""Train any projection by learning and compressing in turn.

  $\min_{w, \Theta} L(w)$ subject to $w = \Delta(\Theta)$ by the augmented
  Lagrangian (Carreira-Perpinan & Idelbayev 2017, arXiv 1707.01209, figure 2).
  In round k, with $\mu_k = \mu_0 a^k$, the weights learn under
  $\frac{\mu_k}{2} \|w - \Delta(\Theta) - \lambda / \mu_k\|^2$ (L step); then
  $\Theta$ becomes what the method makes of $w - \lambda / \mu_k$ (C step), and
  $\lambda$ loses $\mu_k (w - \Delta(\Theta))$. Round 0 is direct compression;
  the last one compresses $w$ itself, and after it, from `settle` on, the
  compressed weights train as the method trains them.

  Args:
    method: A method or a chain: `prune.weights(0.9) >> quantize.uniform(4)`.
      Its `init` must project the weights it is given, to a structure that does
      not depend on their values (ranks by number).
    mu: First penalty $\mu_0$, above 0.
    growth: Factor of the penalty in each round, from 1.
    rounds: C steps, from 1.
    settle: Fraction of the run taken by the rounds, in (0, 1].
    dual: Whether there are multipliers; else it is the quadratic penalty.

  Returns:
    The method. Evaluated or packed, at any time, it is the compressed network.

  Raises:
    ValueError: If an argument is impossible, the method makes no nodes or
      depends on values or data, or another method that compresses comes before
      or after it.
  """
  pace = Pace(mu, growth, rounds, settle, dual)
  return learning('lc', method, _projection(method), pace)


def admm(
  method: Method,
  *,
  rho: float = 1.5e-3,
  rounds: int = 30,
  settle: float = 0.7,
) -> Method:
  r"""Train any projection by ADMM: as `lc`, with one penalty throughout.

  $L(W) + \frac{\rho}{2} \|W - Z + U\|^2$, $Z = \Pi(W + U)$, $U$ gains $W - Z$
  (Zhang+ 2018, arXiv 1804.03294, equations 6 to 9).

  Args:
    method: As `lc`.
    rho: The penalty, above 0.
    rounds: As `lc`.
    settle: As `lc`.

  Returns:
    The method.

  Raises:
    ValueError: As `lc`.
  """
  pace = Pace(rho, 1.0, rounds, settle, True)
  return learning('admm', method, _projection(method), pace)


def _projection(method: Method) -> Project:
  return lambda params, ctx, mu, before: method.init(params, ctx)


def learning(
  where: str, method: Method, project: Project, pace: Pace
) -> Method:
  """Return the method that learns and compresses in turn.

  Args:
    where: Its name, for errors.
    method: Its `update` and `loss` train the compressed weights in the end.
    project: Finds the nearest compressed weights.
    pace: Growth of the penalty and times of the rounds.

  Returns:
    The method.

  Raises:
    ValueError: If the pace is impossible.
  """
  pace.check(where)

  def init(params: Params, ctx: Ctx) -> Params:
    kinds.refuse(where, kinds.ARRAYS, params)
    goals = project(params, ctx, pace.penalty(jnp.float32(0)), None)
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
    at, was = pace.round(ctx), pace.round(before)
    done = was >= pace.rounds
    _expect_last(where, project, params, ctx)
    params = jax.lax.cond(
      ~done & (at > was),
      lambda p: _compressed(p, ctx, project, pace, was),
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
    at = pace.round(ctx)
    mu = jnp.where(at < pace.rounds, pace.penalty(at), 0.0)
    apart = (node.apart() for node in tree.find(Learning, params).values())
    return mu / 2 * sum(apart, jnp.zeros(())) + method.loss(_goals(params), ctx)

  return Method(init, update, loss)


def _compressed(
  params: Params, ctx: Ctx, project: Project, pace: Pace, was: Array
) -> Params:
  """Take a C step at the end of a round, and move the multipliers."""
  nodes = tree.find(Learning, params)
  settled = was + 1 >= pace.rounds
  # Multipliers need not have converged, and nothing makes up for them later.
  free = _free(params, jnp.where(settled, 0.0, 1.0))
  goals = project(free, ctx, pace.penalty(was), _goals(params))

  def follow(path: Path, goal: Any) -> Any:
    if path not in nodes:
      return goal
    node = nodes[path]
    dual = node.dual
    if pace.dual:  # kept divided by the penalty, which has grown
      dual = (dual + node.w - tree.decode(goal)) / pace.growth
    return node.replace(goal=goal, dual=dual, settled=settled)

  return tree.map_paths(follow, goals)


def _free(params: Params, part: Array | float = 1.0) -> Params:
  """Return the weights that C steps compress, with part of the multipliers."""

  def free(path: Path, x: Any) -> Any:
    if not isinstance(x, Learning):
      return x
    dtype = jax.eval_shape(tree.decode, x.goal).dtype
    return (x.w + part * x.dual).astype(dtype)

  return tree.map_paths(free, params)


def _goals(params: Params) -> Params:
  """Return the compressed network."""
  return tree.map_paths(
    lambda _, x: x.goal if isinstance(x, Learning) else x, params
  )


def _with_goals(params: Params, goals: Params) -> Params:
  """Return the network with other compressed weights, and free ones there."""
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
  """Refuse what makes no nodes, or others for other values."""
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
      f'{where}: expected a method whose nodes have one structure whatever '
      'the weights are, got one that looks at values or at data. Give ranks '
      'and amounts by number.'
    ) from e
  _expect_same(where, again, goals)


def _expect_last(
  where: str, project: Project, params: Params, ctx: Ctx
) -> None:
  """Refuse goals that a later method of the chain has compressed again."""
  fresh = jax.eval_shape(
    lambda p: project(_free(p), ctx, jnp.zeros(()), _goals(p)), params
  )
  _expect_same(where, fresh, _goals(params))


def _expect_same(where: str, fresh: Params, goals: Params) -> None:
  one: Any = jax.tree.structure(fresh)
  if one != jax.tree.structure(goals):
    raise ValueError(
      f'{where}: expected no method that compresses after it in a chain. Put '
      f'it inside: "{where}(... >> ...)".'
    )
