"""Export of a network to ONNX.

Inputs are those of the network, as raw images with the channels last; inside
the model the channels come first.
"""

import functools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import onnx
from onnx import TensorProto, helper

from compress import tree
from compress.quantize.integer_codes import Quantized
from tsukiji import atomic
from tsukiji.deploy.onnx.axes import Tensor, results_of
from tsukiji.deploy.onnx.builder import Graph as Builder
from tsukiji.deploy.onnx.emitters import EMITTERS
from tsukiji.deploy.onnx.fusing import fused
from tsukiji.deploy.onnx.loops import info
from tsukiji.deploy.onnx.preparing import prepared
from tsukiji.deploy.onnx.quantized import Served
from tsukiji.deploy.onnx.writer import Writer
from tsukiji.graph.nodes import Graph

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
  graph: Graph,
  variables: Mapping[str, Any],
  *,
  least: float = LEAST,
  name: str = 'network',
) -> onnx.ModelProto:
  """Return a network as an ONNX model.

  Args:
    graph: The network.
    variables: `{'params': ...}` by path: arrays and nodes.
    least: Minimum length of a dot product for a kernel to be written as int8
      codes with its trained scales, which engines compute with integers; it and
      its input must have at most 8 bits. `math.inf` makes everything float32.
    name: Of the model.

  Returns:
    The model: 'images' `[batch, ...]` to 'logits'; several inputs are
    'input_0', ..., and several outputs 'output_0', ....

  Raises:
    ValueError: If an operator is not supported.
  """
  ready = prepared(graph, variables['params'])
  inputs = _inputs(graph)
  writer = Writer(Builder(), EMITTERS, ready.weights, inputs[0].name)
  fuse = functools.partial(fused, grids=ready.kernels, least=least)
  outputs = []
  found = writer.graph(ready.graph, inputs, fuse)
  names = _names(OUTPUT, 'output', len(found))
  for given, x in zip(names, found, strict=True):
    writer.add('Identity', x.name)
    writer.builder.nodes[-1].output[0] = given
    outputs.append(x._replace(name=given))
  constants = writer.builder.constants
  has_codes = any(x.data_type == TensorProto.INT8 for x in constants)
  made = helper.make_model(
    helper.make_graph(
      writer.builder.nodes,
      name,
      [info(x, BATCH) for x in inputs],
      [info(x, BATCH) for x in outputs],
      constants,
    ),
    opset_imports=[helper.make_opsetid('', OPSET)],
    ir_version=IR,
    producer_name='tsukiji',
    doc_string=NOTE if has_codes else '',
  )
  onnx.checker.check_model(made, full_check=True)
  return made


def served(
  graph: Graph, variables: Mapping[str, Any], least: float = LEAST
) -> tuple[str, ...]:
  """Return the paths of the kernels that `model` would write as int8 codes."""
  frozen = tree.freeze(variables['params'])
  if math.isinf(least) or not tree.find(Quantized, frozen):
    return ()
  ready = prepared(graph, variables['params'])
  results = results_of(ready.graph, _inputs(graph), ready.weights)
  nodes, _ = fused(ready.graph, results, ready.kernels, least)
  found = (
    str(node.inputs[1])
    for node in nodes
    if node and isinstance(node.attrs.get('kernel'), Served)
  )
  return (*dict.fromkeys(found),)


def save(path: str | os.PathLike[str], made: onnx.ModelProto) -> None:
  """Write a model atomically."""
  with atomic.replacing(Path(path)) as file:
    file.write(made.SerializeToString())


def _inputs(graph: Graph) -> Sequence[Tensor]:
  names = _names(INPUT, 'input', len(graph.inputs))
  return [
    Tensor(name, (None, *x.shape), jnp.dtype(x.dtype))
    for name, x in zip(names, graph.inputs, strict=True)
  ]


def _names(one: str, many: str, count: int) -> list[str]:
  return [one] if count == 1 else [f'{many}_{i}' for i in range(count)]
