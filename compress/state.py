"""What a method keeps beside the parameters: a regressor, a memory, a count.

It travels with them through a run, in one tree, and is gone from what
`decode` and `freeze` return.
"""

from typing import Any, NamedTuple

from compress.node import Params


class WithState(NamedTuple):
  """A tree of parameters, and the state of methods by name.

  Functions of `tree` see the parameters alone and keep the rest.

  Attributes:
    params: The tree of arrays and nodes.
    trained: Trees of arrays that the optimizer moves with the network.
    kept: Trees that only methods change, in `update`.
  """

  params: Params
  trained: dict[str, Any]
  kept: dict[str, Any]


def bare(params: Params) -> Params:
  """Return the parameters without state."""
  return params.params if isinstance(params, WithState) else params


def around(params: Params, like: Params) -> Params:
  """Return parameters with the state of another tree, if it has any."""
  if not isinstance(like, WithState):
    return params
  return like._replace(params=bare(params))


def add(
  params: Params, name: str, value: Any, *, trained: bool = True
) -> Params:
  """Return parameters with one more state.

  Args:
    params: A tree with or without state.
    name: Of the state; with that of the method, so that it is the only one.
    value: A tree of arrays.
    trained: Whether the optimizer moves it; else `replace` does.

  Returns:
    The tree; as it was if there is a state of that name.
  """
  if not isinstance(params, WithState):
    params = WithState(params, {}, {})
  if name in params.trained | params.kept:
    return params
  if trained:
    return params._replace(trained=params.trained | {name: value})
  return params._replace(kept=params.kept | {name: value})


def read(params: Params, name: str) -> Any:
  """Return the state of a name.

  Raises:
    ValueError: If there is none.
  """
  found = {}
  if isinstance(params, WithState):
    found = params.trained | params.kept
  if name not in found:
    raise ValueError(
      f'state.read: expected one of {sorted(found)}, got {name!r}. Add it in '
      'the init of the method.'
    )
  return found[name]


def replace(params: Params, name: str, value: Any) -> Params:
  """Return parameters with another value of a state that is kept."""
  read(params, name)
  return params._replace(kept=params.kept | {name: value})
