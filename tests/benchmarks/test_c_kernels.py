"""The benchmark of C kernels times what it says."""

import shutil

import numpy as np
import pytest

from benchmarks import c_kernels


@pytest.mark.skipif(not shutil.which('cc'), reason='there is no compiler')
def test_kernels_are_timed_in_both_ways() -> None:
  read = c_kernels.network((8, 2, 8, 3), 0.5)
  assert c_kernels.microseconds(read, True) > 0
  assert c_kernels.microseconds(read, False) > 0
  (_, product) = read.graph.nodes
  assert 0.3 < np.mean(product.inputs[1] != 0) < 0.7
