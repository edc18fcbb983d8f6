"""Loops of graphs as ONNX `Scan`."""

from typing import Any

import numpy as np
from onnx import helper

from tsukiji.deploy.onnx.axes import Tensor
from tsukiji.deploy.onnx.writer import Writer
from tsukiji.graph.folding import folded
from tsukiji.graph.nodes import Graph, Ref, input_name, pruned


def scan(
  w: Writer,
  xs: list[Tensor],
  y: list[Tensor],
  body: Any,
  consts: int,
  carry: int,
  length: int,
  reverse: bool,
) -> list[Tensor]:
  """Write a loop as `Scan`; what does not change is read from outside."""
  whole = consts + carry
  fixed, xs = xs[:consts], [w.plain(x) for x in xs]
  state, rows = xs[consts:whole], xs[whole:]
  if not rows:  # ONNX takes the length from a sequence
    rows = [w.constant(np.zeros(length), np.float32)]
  inside = w.inside()
  prefix = inside.builder.prefix
  given = [
    Tensor(f'{prefix}in_{i}', x.shape if i < carry else x.shape[1:], x.dtype)
    for i, x in enumerate((*state, *rows))
  ]
  taken = given if len(xs) > whole else given[:carry]
  found = inside.graph(_with_constants(body, fixed), [*xs[:consts], *taken])
  ends = [inside.add('Identity', x.name) for x in found]
  made = helper.make_graph(
    inside.builder.nodes,
    f'{prefix}loop',
    [info(x) for x in given],
    [info(x._replace(name=n)) for x, n in zip(found, ends, strict=True)],
  )
  names = [f'{w.add("Identity", x.name)}' for x in state]
  way, ways = int(reverse), [int(reverse)] * (len(found) - carry)
  outs = [f'{prefix}out_{i}' for i in range(len(found))]
  settings: dict[str, Any] = {'scan_output_directions': ways} if ways else {}
  node = helper.make_node(
    'Scan',
    [*names, *(x.name for x in rows)],
    outs,
    f'{prefix}scan',
    body=made,
    num_scan_inputs=len(rows),
    scan_input_directions=[way] * len(rows),
    **settings,
  )
  w.builder.nodes.append(node)
  return [x._replace(name=name) for x, name in zip(y, outs, strict=True)]


def _with_constants(body: Graph, inputs: list[Tensor]) -> Graph:
  """Return the body of a loop in which some inputs are constants."""
  values = {
    input_name(i): x.value for i, x in enumerate(inputs) if x.value is not None
  }

  def read(ref: Ref) -> Ref:
    return values.get(ref, ref) if isinstance(ref, str) else ref

  nodes = (
    node._replace(inputs=tuple(map(read, node.inputs))) for node in body.nodes
  )
  outputs = tuple(map(read, body.outputs))
  return pruned(folded(body._replace(nodes=tuple(nodes), outputs=outputs)))


def info(x: Tensor, batch: str = 'batch') -> Any:
  """Return the declaration of a tensor."""
  kind = np.dtype(np.float32) if x.is_float else np.dtype(x.dtype)
  shape = [batch if n is None else n for n in x.shape]
  return helper.make_tensor_value_info(
    x.name, helper.np_dtype_to_tensor_dtype(kind), shape
  )
