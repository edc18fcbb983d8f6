"""Distillation: losses that pull the network towards its teacher."""

import jax
import jax.numpy as jnp

from compress.method import Ctx, Method
from compress.tree import Array, Params


def logits(temperature: float = 4.0, weight: float = 1.0) -> Method:
  r"""Match the teacher's softened distribution.

  Adds $w T^2 \, \mathrm{KL}(\sigma(z_t / T) \| \sigma(z_s / T))$ to the task
  loss (Hinton+ 2015, arXiv 1503.02531, section 2). The teacher's outputs come
  with the batch: whoever trains decides who teaches.

  Args:
    temperature: T, above 0; higher shows more of the small probabilities.
    weight: w, above 0.

  Returns:
    The method; it has only a loss and chains like any other.

  Raises:
    ValueError: If an argument is not positive; in training, if the batch has
      no teacher or one with other classes.
  """
  for what, value in (('temperature', temperature), ('weight', weight)):
    if not value > 0:
      raise ValueError(
        f'distill.logits: expected a {what} above 0, got {value!r}.'
      )

  def loss(params: Params, ctx: Ctx) -> Array:
    del params
    batch = ctx.batch
    if batch is None or batch.teacher is None:
      raise ValueError(
        'distill.logits: expected a teacher, got a batch without. Give the '
        'plan one, or leave distillation out of the recipe.'
      )
    if batch.teacher.shape != batch.outputs.shape:
      raise ValueError(
        f'distill.logits: expected a teacher with outputs '
        f'{batch.outputs.shape}, got {batch.teacher.shape}. Teacher and '
        'student need the same classes.'
      )
    target = jax.nn.log_softmax(batch.teacher / temperature)
    student = jax.nn.log_softmax(batch.outputs / temperature)
    divergence = jnp.sum(jnp.exp(target) * (target - student), axis=-1)
    return weight * temperature**2 * jnp.mean(divergence)

  return Method(loss=loss)
