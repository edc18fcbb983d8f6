"""Operations that need a rule of their own when a parameter enters them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from compress.dataflow import calls, interpreter, loops, multiplications, views
from compress.dataflow.interpreter import Data, Results, Rule, Scope
from compress.dataflow.views import View
from compress.tree import Array, Path

CHECKPOINTS = ('checkpoint', 'remat', 'remat2')


def _conditional(
  eqn: Any, args: list[Any], marks: list[Any], scope: Scope
) -> Results:
  rule = calls.platform if interpreter.default_of(eqn) else loops.cond
  return rule(eqn, args, marks, scope)


RULES: dict[str, Rule] = {
  **dict.fromkeys(calls.PRODUCTS, multiplications.product),
  **dict.fromkeys(calls.CALLS, calls.call),
  **dict.fromkeys(calls.CUSTOM, calls.custom),
  **dict.fromkeys(CHECKPOINTS, calls.checkpoint),
  'concatenate': multiplications.concatenate,
  'cond': _conditional,
  'gather': multiplications.gather,
  'scan': loops.scan,
  'shard_map': calls.shard_map,
  'while': loops.while_,
}


def run(
  fn: Callable[..., Any],
  params: dict[Path, Array],
  args: tuple[Any, ...],
  hook: interpreter.Hook,
  remat: bool = True,
) -> tuple[Any, interpreter.Record]:
  """Evaluate `fn(params, *args)` with a hook.

  Args:
    fn: A function of a dictionary of arrays and of any trees.
    params: The parameters by path.
    args: Trees of arrays.
    hook: What happens where parameters are used.
    remat: Whether rematerialized calls stay; else they are inlined, so that
      the hook may keep what it is given.

  Returns:
    What `fn` returns, and the records.
  """
  leaves = [*params.values(), *jax.tree.leaves(args)]
  closed, shape = jax.make_jaxpr(fn, return_shape=True)(params, *args)
  # `make_jaxpr` orders a dictionary by its keys.
  marks: list[Any] = [_parameter(p, params[p]) for p in sorted(params)]
  leaves[: len(marks)] = [params[p] for p in sorted(params)]
  marks += [Data()] * (len(leaves) - len(marks))
  jaxpr, consts = interpreter.opened(closed)
  table = RULES if remat else RULES | dict.fromkeys(CHECKPOINTS, calls.call)
  scope = Scope(hook, (), {}, table)
  found = interpreter.evaluate(jaxpr, consts, leaves, marks, scope)
  structure = jax.tree.structure(shape)
  return jax.tree.unflatten(structure, found.values), found.records


def _parameter(path: Path, x: Any) -> View | Data:
  floating = jnp.issubdtype(x.dtype, jnp.floating)
  return views.of(path, x) if floating else Data()
