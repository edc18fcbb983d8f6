"""Optimizers and learning rates from the settings of a run."""

import ml_collections
import optax

from compress import tree


def from_settings(
  settings: ml_collections.ConfigDict, steps: int
) -> optax.GradientTransformation:
  """Return the optimizer of the settings.

  Args:
    settings: `optimizer`, `lr`, `schedule`, `warmup` (fraction of the run),
      `momentum`, `weight_decay`, `clip` (largest gradient norm, 0 for none).
    steps: Length of the run.

  Returns:
    An optax transformation. Weight decay applies to weights only, not to
    biases and norms; of nodes, to `compress.tree.decayed`.
  """
  lr = learning_rate(settings, steps)
  match settings.optimizer:
    case 'adamw':
      tx = optax.adamw(
        lr,
        b1=settings.momentum,
        weight_decay=settings.weight_decay,
        mask=tree.decayed,
      )
    case 'sgd':
      tx = optax.chain(
        optax.add_decayed_weights(settings.weight_decay, mask=tree.decayed),
        optax.sgd(lr, momentum=settings.momentum, nesterov=True),
      )
    case other:
      raise ValueError(
        f'train.optimizer: expected adamw or sgd, got {other!r}.'
      )
  if settings.clip > 0:
    return optax.chain(optax.clip_by_global_norm(settings.clip), tx)
  return tx


def learning_rate(
  settings: ml_collections.ConfigDict, steps: int
) -> optax.Schedule:
  """Return the learning rate by step: 'constant' or 'cosine', warmed up."""
  warmup = int(settings.warmup * steps)
  match settings.schedule:
    case 'constant':
      after = optax.constant_schedule(settings.lr)
    case 'cosine':
      after = optax.cosine_decay_schedule(settings.lr, max(1, steps - warmup))
    case other:
      raise ValueError(
        f'train.schedule: expected constant or cosine, got {other!r}.'
      )
  if not warmup:
    return after
  rise = optax.linear_schedule(0.0, settings.lr, warmup)
  return optax.join_schedules([rise, after], [warmup])
