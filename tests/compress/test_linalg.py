"""Many matrices are factored without waiting for one another."""

import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import linalg
from tests.compress.test_extreme_weights import TEXTS, decoded_run
from tests.runs import TINY, start

TWO_AT_ONCE = """
import jax, jax.numpy as jnp, numpy as np
from jax.scipy.linalg import solve_triangular
from compress import linalg

def root(a):
  return solve_triangular(jnp.linalg.cholesky(a), jnp.eye(8), lower=True)

x = np.random.default_rng(0).normal(size=(4, 8192, 8, 8)).astype(np.float32)
x = x @ x.swapaxes(-1, -2) + np.eye(8, dtype=np.float32)
run = jax.jit(lambda xs: [linalg.each(root, one) for one in xs])
for _ in range(20):
  found = jax.block_until_ready(run([*x]))
print(max(abs(y @ a @ y.mT - np.eye(8)).max() for y, a in zip(found, x)) < 1e-3)
"""


def test_each_is_vmap() -> None:
  x = np.random.default_rng(0).normal(size=(5, 4, 6))
  found = linalg.each(jnp.linalg.svd, jnp.float32(x))
  want = np.linalg.svd(np.float32(x))
  np.testing.assert_allclose(found[1], want[1], rtol=1e-5)
  assert [y.shape for y in found] == [y.shape for y in want]


def test_each_takes_several_batches() -> None:
  x, y = jnp.arange(6.0).reshape(3, 2), jnp.arange(3.0)
  found = jax.jit(lambda x, y: linalg.each(jnp.multiply, x, y))(x, y)
  np.testing.assert_array_equal(found, x * y[:, None])


@pytest.mark.slow
def test_many_batches_at_once_end() -> None:
  """`jax.vmap` hangs here where XLA has as few threads, with jaxlib 0.10."""
  done = subprocess.run(
    [sys.executable, '-c', TWO_AT_ONCE],
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
  )
  assert done.stdout.strip() == 'True'


@pytest.mark.slow
@pytest.mark.parametrize('text', TEXTS)
def test_methods_factor_one_matrix_at_a_time(text: str) -> None:
  run = decoded_run(text)
  if not hasattr(run, 'lower'):
    pytest.skip('sizes depend on values: its steps are compiled one by one')
  program = run.lower(start(TINY)['params']).as_text()
  assert batches(program) == []


def test_batches_are_found() -> None:
  program = jax.jit(jnp.linalg.cholesky).lower(jnp.ones((3, 2, 2))).as_text()
  assert batches(program) == [3]
  one = jax.jit(jnp.linalg.cholesky).lower(jnp.ones((1, 2, 2))).as_text()
  assert batches(one) == []


def batches(program: str) -> list[int]:
  """Return the numbers of matrices of calls of LAPACK, where several."""
  calls = re.findall(r'@lapack_\w+\(.*?: \(tensor<([\dx]+)x\w\d+>', program)
  shapes = [[*map(int, x.split('x'))] for x in calls]
  return [n for n in (math.prod(x[:-2]) for x in shapes) if n > 1]
