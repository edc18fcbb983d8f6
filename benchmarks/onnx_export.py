"""ONNX of networks of other frameworks beside jax2onnx.

`pip install jax2onnx` into an environment of its own, with this repository's
requirements, then `python -m benchmarks.onnx_export`. Each network of
`tests.frameworks` is exported both ways and timed in turn in ONNX Runtime, on
one thread: the error against JAX, microseconds of a call, and their ratio.
"""

import contextlib
import io
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime

from compress import tree
from tests import frameworks
from tsukiji.deploy.onnx import model as written
from tsukiji.graph.capture import capture

CALLS, ROUNDS = 300, 3


def session(model: Any) -> Any:
  """Return a model in ONNX Runtime, on one thread."""
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads, options.log_severity_level = 1, 4
  return onnxruntime.InferenceSession(
    model.SerializeToString(), options, ['CPUExecutionProvider']
  )


def fed(run: Any, inputs: Any) -> dict[str, np.ndarray]:
  """Return inputs by name; ONNX has 16-bit floats as float32."""
  wide = [
    np.float32(x) if x.dtype == jnp.bfloat16 else np.asarray(x) for x in inputs
  ]
  return dict(zip([x.name for x in run.get_inputs()], wide, strict=True))


def microseconds(run: Any, inputs: Any) -> float:
  """Return the median time of a call."""
  feed, taken = fed(run, inputs), []
  for _ in range(CALLS):
    begin = time.perf_counter()
    run.run(None, feed)
    taken.append(time.perf_counter() - begin)
  return 1e6 * statistics.median(taken)


def ours(model: frameworks.Model) -> Any:
  """Return the ONNX model of this repository."""
  graph = capture(model.apply, model.params, *model.inputs)
  return written.model(graph, {'params': tree.paths(model.params)})


def theirs(model: frameworks.Model) -> Any:
  """Return the ONNX model of jax2onnx."""
  from jax2onnx import to_onnx

  shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in model.inputs]
  with contextlib.redirect_stdout(io.StringIO()):
    return to_onnx(lambda *xs: model.apply(model.params, *xs), shapes)


def compare(name: str) -> str:
  """Return a row of the table."""
  model = frameworks.MODELS[name]()
  want = np.float32(model.apply(model.params, *model.inputs))

  def error(run: Any) -> float:
    (found,) = run.run(None, fed(run, model.inputs))
    return float(np.max(np.abs(np.float32(found) - want)))

  one = session(ours(model))
  try:
    other = session(theirs(model))
    wrong = error(other)
  except Exception as e:  # whatever another exporter raises
    said = ' '.join(str(e).split())[:60]
    return f'| {name} | {error(one):.0e} | {type(e).__name__}: {said} | | |'
  times = [
    [microseconds(run, model.inputs) for run in (one, other)]
    for _ in range(ROUNDS)
  ]
  a, b = (statistics.median(x) for x in zip(*times, strict=True))
  errors = f'{error(one):.0e} | {wrong:.0e}'
  return f'| {name} | {errors} | {a:.1f} / {b:.1f} | {a / b:.2f} |'


def main() -> None:
  """Print the table."""
  print('| network | error | error of jax2onnx | us | ratio |')
  print('|---|---:|---:|---:|---:|')
  for name in frameworks.MODELS:
    print(compare(name), flush=True)


if __name__ == '__main__':
  main()
