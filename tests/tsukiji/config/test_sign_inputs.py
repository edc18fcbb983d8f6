"""Signs that cannot differ are refused, those that may are not."""

from typing import Any

import pytest

from tests.runs import NETWORKS, one_shot, start
from tsukiji.config import sign_inputs
from tsukiji.models import spec as sp
from tsukiji.models import zoo
from tsukiji.models.spec import Spec

RELU = NETWORKS['tsukijinet2021']
SIGNED = zoo.binary_tsukijinet((10, 10, 1), 3, conv=(4, 4), hidden=(5,))


def params(spec: Spec, text: str) -> dict[str, Any]:
  found: dict[str, Any] = one_shot(spec, text)['params']
  return found


@pytest.mark.parametrize(
  ('spec', 'text'),
  [
    (SIGNED, 'binary.bnn()'),
    (SIGNED, 'binary.inputs(ends=False) >> binary.weights()'),
    (RELU, 'binary.react()'),
    (RELU, 'binary.weights()'),
  ],
)
def test_signs_that_may_differ_are_fine(spec: Spec, text: str) -> None:
  sign_inputs.expect_both(spec, params(spec, text))


@pytest.mark.parametrize(
  'text',
  [
    'binary.bnn()',
    'binary.inputs() >> binary.weights()',
    'binary.inputs() >> prune.weights(0.5)',
    'binary.xnor()',
    'binary.inputs(scaled=True)',
  ],
)
def test_signs_behind_relu_are_refused(text: str) -> None:
  message = "conv2: expected an input of both signs, got 'relu'. Its signs"
  with pytest.raises(ValueError, match=message):
    sign_inputs.expect_both(RELU, params(RELU, text))


@pytest.mark.parametrize(('other', 'right'), [('relu', False), ('tanh', True)])
def test_paths_that_meet_are_never_negative_if_all_are(
  other: str, right: bool
) -> None:
  paths = ((sp.Act(fn='sigmoid'),), (sp.Act(fn=other), sp.Dropout(rate=0.5)))
  layers = (
    sp.Branch(paths=paths, merge='concat'),
    sp.Flatten(),
    sp.Dense(name='fc', features=2),
  )
  spec = Spec(name='met', input_shape=(2, 2, 1), layers=layers)
  found = {'fc': params(SIGNED, 'binary.inputs(ends=False)')['dense1']}
  if right:
    sign_inputs.expect_both(spec, found)
  else:
    with pytest.raises(ValueError, match="fc: .* got 'sigmoid'"):
      sign_inputs.expect_both(spec, found)


def test_dense_networks_are_fine() -> None:
  sign_inputs.expect_both(RELU, start(RELU)['params'])
