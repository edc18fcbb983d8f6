"""Eight simulated devices, which need a process of their own."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent


def on_eight(module: str, call: str, path: pathlib.Path) -> dict[str, Any]:
  """Return the arrays by name that a call gives where there are eight devices.

  Args:
    module: Where the function is, as 'tests.tsukiji.training.test_step'.
    call: An expression over it, as 'short_run()[0]'.
    path: Of the file that brings them here.
  """
  code = (
    f'import jax, numpy; import {module} as t;'
    f'numpy.savez({str(path)!r}, devices=jax.device_count(), **t.{call})'
  )
  flags = '--xla_force_host_platform_device_count=8'
  env = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  subprocess.run([sys.executable, '-c', code], env=env, cwd=ROOT, check=True)
  with np.load(path) as found:
    arrays = dict(found)
  assert arrays.pop('devices') == 8
  return arrays
