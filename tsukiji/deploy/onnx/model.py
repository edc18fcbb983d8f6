"""Export of a network to ONNX.

Inputs are raw images with the channels last, as an artefact takes them; inside
the model the channels come first.
"""

import os
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from compress import tree
from tsukiji import atomic
from tsukiji.deploy.onnx import quantized as grids
from tsukiji.deploy.onnx.builder import Graph
from tsukiji.deploy.onnx.operators import Network, sequence
from tsukiji.deploy.onnx.tensors import Value, in_order
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec

INPUT, OUTPUT = 'images', 'logits'
BATCH = 'batch'
OPSET, IR = 17, 8  # understood by every engine since 2022
# Without this option ONNX Runtime adds pairs of products in 16 bits on x86
# processors that lack VNNI, where they saturate. Its exact kernels are slower.
EXACT = ('session.x64quantprecision', '1')
NOTE = (
  f'ONNX Runtime: set the session option {EXACT[0]} to {EXACT[1]} on x86 '
  'processors without VNNI, where integer sums saturate otherwise.'
)
# Sums of 25 products take ONNX Runtime 0.9 ms in int8 and 0.25 ms in float32.
LEAST = 64


def model(
  spec: Spec, variables: dict[str, Any], *, least: float = LEAST
) -> onnx.ModelProto:
  """Return a network as an ONNX model.

  Args:
    spec: The network, lowered or not.
    variables: `{'params': ..., 'batch_stats': ...}`: arrays and nodes.
    least: Minimum length of a dot product for a kernel to be written as int8
      codes with its trained scales, which engines compute with integers; it and
      its input must have at most 8 bits. `math.inf` makes everything float32.

  Returns:
    The model: 'images' `[batch, *spec.input_shape]` float32 to 'logits'.

  Raises:
    ValueError: If a layer or a weight is not supported.
  """
  graph = Graph()
  steps = list(sp.walk(spec))
  params = tree.freeze(variables['params'])
  stats = variables.get('batch_stats', {})
  shapes = (step.after for step in steps)
  integers = grids.served_of(params, least)
  net = Network(graph, params, stats, shapes, integers)
  last = sequence(net, spec.layers, _entrance(graph, spec))
  graph.add('Identity', _exit(graph, last))
  graph.nodes[-1].output[0] = OUTPUT
  body = helper.make_graph(
    graph.nodes,
    spec.name,
    [_info(INPUT, spec.input_shape)],
    [_info(OUTPUT, sp.output_shape(spec))],
    graph.constants,
  )
  made = helper.make_model(
    body,
    opset_imports=[helper.make_opsetid('', OPSET)],
    ir_version=IR,
    producer_name='tsukiji',
    doc_string=NOTE if integers else '',
  )
  onnx.checker.check_model(made, full_check=True)
  return made


def served(variables: dict[str, Any], least: float = LEAST) -> tuple[str, ...]:
  """Return the layers whose kernels `model` would write as int8 codes."""
  return (*grids.served_of(tree.freeze(variables['params']), least),)


def save(path: str | os.PathLike[str], made: onnx.ModelProto) -> None:
  """Write a model atomically."""
  with atomic.replacing(Path(path)) as file:
    file.write(made.SerializeToString())


def _entrance(graph: Graph, spec: Spec) -> Value:
  """Transpose to channels first, if there are several axes."""
  shape = spec.input_shape
  if len(shape) != 3:
    return Value(INPUT, shape)
  if shape[2] == 1:  # a transpose that moves nothing
    sides = graph.constant([0, 1, *shape[:2]], 'int64')
    return Value(graph.add('Reshape', INPUT, sides), shape)
  return Value(graph.add('Transpose', INPUT, perm=[0, 3, 1, 2]), shape)


def _exit(graph: Graph, x: Value) -> str:
  """Return the output in the order of the network."""
  if len(x.shape) == 3:
    return graph.add('Transpose', x.name, perm=[0, 2, 3, 1])
  return in_order(graph, x).name


def _info(name: str, shape: sp.Shape) -> onnx.ValueInfoProto:
  return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])
