"""Corrected biases keep the mean outputs of layers."""

from typing import Any

import numpy as np
import pytest

from compress import calibration, recipe, tree
from compress.method import only
from compress.quantize.bias_correction import bias_correction
from compress.quantize.uniform import uniform
from tests.nets import PAIR
from tests.runs import TINY, assert_same_bits, calibrated, start


def test_corrected_layers_have_the_mean_outputs_of_before() -> None:
  ctx, params = calibrated(PAIR), start(PAIR)['params']
  plain = uniform(2, 3).init(params, ctx)
  nodes = bias_correction(uniform(2, 3), examples=32).init(params, ctx)

  def means(params: Any) -> dict[str, np.ndarray]:
    dense = tree.paths(tree.decode(params))
    moments = calibration.moments('here', ctx, params, 32)
    return {
      path: found.total[0]
      / found.number
      @ dense[path].reshape(found.total.shape[1], -1)
      + dense[path.replace('kernel', 'bias')]
      for path, found in moments.items()
    }

  want, got, worse = means(params), means(nodes), means(plain)
  for path in want:
    np.testing.assert_allclose(got[path], want[path], atol=1e-4)
  assert np.abs(worse['fc/kernel'] - want['fc/kernel']).max() > 0.01
  for path, x in tree.paths(plain).items():
    if path.endswith('kernel'):
      assert_same_bits(x.decode(), tree.paths(nodes)[path].decode())


def test_correcting_changes_only_the_start() -> None:
  inner = uniform(3, 4, momentum=0.5)
  outer = bias_correction(inner)
  assert outer.update is inner.update
  assert outer.loss is inner.loss


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('4', 'expected a method and a number of examples'),
    ('quantize.uniform(4), examples=0', 'expected examples from 1, got 0'),
  ],
)
def test_impossible_arguments_are_refused(text: str, message: str) -> None:
  with pytest.raises(ValueError, match=f'bias_correction: {message}'):
    recipe.parse(f'quantize.bias_correction({text})')


def test_layers_without_biases_are_refused() -> None:
  ctx, params = calibrated(TINY), start(TINY)['params']
  with pytest.raises(ValueError, match='expected layers with a bias, got none'):
    only('conv/.*', bias_correction(uniform(4))).init(params, ctx)
