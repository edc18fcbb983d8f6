"""Check of binary inputs, which are all +1 behind nonnegative activations."""

from typing import Any

from compress import tree
from compress.binary.inputs import Signed
from tsukiji.errors import expect
from tsukiji.models import spec as sp
from tsukiji.models.spec import Layer, Spec

NEVER_NEGATIVE = ('relu', 'sigmoid')
KEEPING = (sp.Pool, sp.GlobalMean, sp.Flatten, sp.Dropout)


def expect_both(spec: Spec, params: dict[str, Any]) -> None:
  """Check that no layer has binary inputs that are all +1.

  Trained thresholds can make them differ. Scales cannot: the outputs of
  XNOR-Net behind a ReLU depend only on the mean of the inputs.

  Args:
    spec: The network.
    params: Nodes of arrays or of their shapes.

  Raises:
    ValueError: If a layer has such an input.

  >>> layers = (sp.Act(), sp.Dense(name='fc', features=2))
  >>> spec = Spec(name='n', input_shape=(3,), layers=layers)
  >>> node = Signed(None, None, 'clipped', sized=False)
  >>> expect_both(spec, {'fc': {'kernel': node}})
  Traceback (most recent call last):
  ValueError: fc: expected an input of both signs, got 'relu'. ...
  """
  _follow(spec.layers, params, '')


def _follow(
  layers: tuple[Layer, ...], params: dict[str, Any], before: str
) -> str:
  """Return the activation that makes an output nonnegative, if any."""
  for layer in layers:
    if isinstance(layer, sp.Branch):
      ends = [_follow(path, params, before) for path in layer.paths]
      before = ends[0] if all(ends) else ''
    elif isinstance(layer, sp.Act):
      before = layer.fn if layer.fn in NEVER_NEGATIVE else ''
    elif isinstance(layer, sp.Conv | sp.Dense):
      expect(
        layer.name,
        not (before and _sees_signs(params[layer.name]['kernel'])),
        'an input of both signs',
        before,
        'Its signs would all be +1: take a network in the form for signs '
        '(binary_tsukijinet, hard_tanh), or learn thresholds (binary.react).',
      )
      before = ''
    elif not isinstance(layer, KEEPING):
      before = ''
  return before


def _sees_signs(kernel: Any) -> bool:
  node = kernel
  while tree.is_node(node):
    if isinstance(node, Signed):
      return node.threshold is None
    node = getattr(node, node.inner[0]) if node.inner else None
  return False
