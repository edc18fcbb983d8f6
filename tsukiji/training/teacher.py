"""Teachers: networks of the experiment, files or code, as functions."""

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from compress import recipe
from compress.method import TEACHER
from compress.tree import Array
from tsukiji.data.datasets import Split
from tsukiji.deploy import artefact
from tsukiji.deploy.passes.lower import Variables
from tsukiji.errors import expect
from tsukiji.models import net as net_lib
from tsukiji.models.spec import Shape, Spec
from tsukiji.training import evaluate
from tsukiji.training.step import Plan

Teacher: TypeAlias = Callable[[Array], Array]  # images -> outputs


def ensemble(teachers: Sequence[Teacher]) -> Teacher:
  """Return the mean of the outputs of several teachers.

  Of logits it is the geometric mean of the distributions (Hinton+ 2015, arXiv
  1503.02531, section 1). Features are those of the first that has the layer.

  >>> both = ensemble((lambda x: x, lambda x: 3 * x))
  >>> both(jnp.ones(2)).tolist()
  [2.0, 2.0]
  """
  if len(teachers) == 1:
    return teachers[0]
  first, *others = teachers

  def mean(x: Array, outputs: Array) -> Array:
    return sum((t(x) for t in others), outputs) / len(teachers)

  if not isinstance(first, jax.tree_util.Partial):
    return lambda x: mean(x, first(x))
  (params,) = first.args
  return jax.tree_util.Partial(
    lambda params, x: mean(x, first.func(params, x)), params
  )


def module(network: nn.Module, variables: Any, **kwargs: Any) -> Teacher:
  """Return any Flax module as a teacher.

  Args:
    network: Takes images `[batch, ...]`.
    variables: All its collections.
    **kwargs: Of its call, as `train=False`.

  Returns:
    The teacher; features are available by the paths of its layers.
  """
  run: Callable[..., Any] = network.apply
  params = variables['params']

  def apply(params: Any, x: Array) -> Array:
    found = {**variables, 'params': params}
    outputs: Array = run(found, jnp.asarray(x, jnp.float32), **kwargs)
    return outputs

  return jax.tree_util.Partial(apply, params)


def named(name: str, inputs: Shape) -> Teacher:
  """Return the teacher of a file, or of code.

  Args:
    name: The path of an artefact, as 'big.tsk'; or 'package.module:function'
      of a function without arguments that returns a `Teacher`, as `module`
      makes one.
    inputs: Shape of one example.

  Raises:
    ValueError: If there is no such file or function, or the network of the
      file takes other inputs.
  """
  if not name.endswith('.tsk'):
    try:
      found: Teacher = pkgutil.resolve_name(name)()
    except (AttributeError, ImportError, TypeError, ValueError) as e:
      raise ValueError(
        f'teacher {name}: expected a function without arguments that returns '
        f'a function of images, got {e!r}.'
      ) from e
    expect(f'teacher {name}', callable(found), 'a function of images', found)
    return found
  shipped = artefact.load(name)
  size = shipped.inputs[0].shape
  expect(f'teacher {name}', size == inputs, f'inputs {inputs}', size)
  return evaluate.predictor(shipped.network, shipped.variables)


def untrained(spec: Spec) -> Teacher:
  """Return an untrained network as a teacher, for shapes only."""
  zeros: Variables = jax.tree.map(
    lambda s: jnp.zeros(s.shape, s.dtype), net_lib.variable_shapes(spec)
  )
  return evaluate.predictor(spec, zeros)


def is_outside(name: str) -> bool:
  """Return whether a teacher is a file or code, not a network of the config."""
  return ':' in name or name.endswith('.tsk')


def teacher_of(
  item: ConfigDict, network: str, inputs: Shape, own: Callable[[str], Teacher]
) -> Teacher:
  """Return the teacher of a recipe.

  Args:
    item: The recipe.
    network: The network it is for, its own teacher where none is named.
    inputs: Shape of one example.
    own: A network of the experiment, as a teacher.
  """
  return ensemble(
    [
      named(name, inputs) if is_outside(name) else own(name)
      for name in item.teacher or (network,)
    ]
  )


def method_of(config: ConfigDict, name: str) -> str:
  """Return the method of a recipe, with the helper of the config."""
  item, helper = config.recipes[name], config.helper
  text = recipe.filled(item.method, item.parts)
  helped = item.use_helper and helper and not recipe.parse(text).requires
  return ' >> '.join(filter(None, (text, helper if helped else '')))


def precomputed(
  plan: Plan, chosen: ConfigDict, split: Split
) -> np.ndarray | None:
  """Return the teacher outputs for a split, if they do not change by epoch.

  Computed once, they serve every epoch. None with augmentation, with a jointly
  trained teacher, or where its features are required.
  """
  fixed = not (plan.joint_teacher or chosen.augment)
  if (
    plan.teacher is None
    or not fixed
    or plan.method.requires != {TEACHER}
    or chosen.epochs < 2
  ):
    return None
  return evaluate.outputs(plan.teacher, split)
