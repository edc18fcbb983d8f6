"""Options of XLA for training steps on a CPU."""

import functools

import jax

from tsukiji import taps
from tsukiji.models import spec as sp

# By default a CPU computes first what could run at once: nine products wait in
# memory for nine sums, which takes 4 to 6 times as long as to use each at once.
_SCHEDULE = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
# jax 0.10 sends reductions, convolutions and products to YNNPACK. Eigen's
# convolutions are faster here, up to 2.5x, except those of `taps.by_columns`.
_REDUCTIONS = {
  'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_REDUCE'
}


def options(spec: sp.Spec) -> dict[str, str]:
  """Return the options with which `jax.jit` should compile a training step.

  Nothing is set on other platforms, and nothing that this compiler does not
  know, since such options are experimental.

  Args:
    spec: The network that is trained.

  Returns:
    A dictionary for `jax.jit(step, compiler_options=...)`.
  """
  if jax.default_backend() != 'cpu':
    return {}
  chosen = _SCHEDULE | ({} if _is_narrow(spec) else _REDUCTIONS)
  return dict(item for item in chosen.items() if _is_known(*item))


def _is_narrow(spec: sp.Spec) -> bool:
  """Return whether a convolution of features takes few filters."""
  return any(
    isinstance(step.layer, sp.Conv)
    and step.layer.groups == 1
    and step.layer.kernel[1] > 1
    and step.before[-1] > taps.FEW
    and min(step.before[-1], step.layer.features) <= taps.NARROW
    for step in sp.walk(spec)
  )


@functools.cache
def _is_known(name: str, value: str) -> bool:
  """Return whether this compiler has an option."""
  try:
    jax.jit(lambda x: x, compiler_options={name: value})(0.0)
  except RuntimeError:
    return False
  return True
