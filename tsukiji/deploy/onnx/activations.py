"""Activations in ONNX, by their names in `spec.ACTIVATIONS`."""

from collections.abc import Callable

import numpy as np

from tsukiji.deploy.onnx.builder import Graph


def _gelu(graph: Graph, x: str) -> str:
  """Append the tanh approximation, as in `flax.linen.gelu`."""
  cube = graph.add('Mul', graph.add('Mul', x, x), x)
  cube = graph.add('Mul', cube, graph.constant(0.044715))
  inner = graph.add('Add', x, cube)
  inner = graph.add('Mul', inner, graph.constant(np.sqrt(2 / np.pi)))
  bent = graph.add('Add', graph.add('Tanh', inner), graph.constant(1.0))
  half = graph.add('Mul', x, graph.constant(0.5))
  return graph.add('Mul', half, bent)


ACTS: dict[str, Callable[[Graph, str], str]] = {
  'relu': lambda graph, x: graph.add('Relu', x),
  'leaky_relu': lambda graph, x: graph.add('LeakyRelu', x, alpha=0.01),
  'elu': lambda graph, x: graph.add('Elu', x, alpha=1.0),
  'gelu': _gelu,
  'silu': lambda graph, x: graph.add('Mul', x, graph.add('Sigmoid', x)),
  'tanh': lambda graph, x: graph.add('Tanh', x),
  'hard_tanh': lambda graph, x: graph.add(
    'Clip', x, graph.constant(-1.0), graph.constant(1.0)
  ),
  'sigmoid': lambda graph, x: graph.add('Sigmoid', x),
}
