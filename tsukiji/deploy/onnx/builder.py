"""A builder of ONNX graphs."""

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Graph:
  """Nodes in order and constants, with unique names.

  Attributes:
    nodes: The nodes.
    constants: The initializers.
  """

  def __init__(self, prefix: str = '') -> None:
    self.nodes: list[NodeProto] = []
    self.constants: list[TensorProto] = []
    self.prefix = prefix

  def inside(self) -> 'Graph':
    """Return a graph for the body of a loop, whose constants are in this."""
    body = Graph(f'{self.prefix}body_{len(self.nodes)}_')
    body.constants = self.constants
    return body

  def add(self, op: str, *inputs: str, **attributes: Any) -> str:
    """Append a node and return the name of its output."""
    name = f'{self.prefix}{op}_{len(self.nodes)}'
    node = helper.make_node(op, inputs, [name], name, **attributes)
    self.nodes.append(node)
    return name

  def constant(self, value: Any, dtype: Any = np.float32) -> str:
    """Append a constant and return its name."""
    name = f'constant_{len(self.constants)}'
    array = np.ascontiguousarray(np.asarray(value, dtype))
    array = array.reshape(np.shape(value))  # which makes a vector of `()`
    self.constants.append(numpy_helper.from_array(array, name))
    return name
