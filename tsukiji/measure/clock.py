"""Times of lowered networks that methods may ask for, each measured once.

A method that chooses widths by the clock must choose the same ones when its
run is continued, so that times are kept beside the run.
"""

import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

from tsukiji import files
from tsukiji import spec as sp
from tsukiji.deploy import artefact
from tsukiji.measure import sampling
from tsukiji.spec import Spec

REPEATS = 30  # samples of a network


def milliseconds(spec: Spec, variables: dict[str, Any]) -> float:
  """Return the median time of one example, as the process is pinned.

  Args:
    spec: A lowered network.
    variables: Its parameters (arrays or nodes) and batch statistics.

  Returns:
    Milliseconds.
  """
  run = sampling.runner(spec.input_shape, artefact.forward(spec, variables), 1)
  return sampling.compare({'it': run}, repeats=REPEATS)['it']['p50']


def remembering(
  folder: pathlib.Path,
  measure: Callable[[Spec, dict[str, Any]], float] = milliseconds,
) -> Callable[[Spec, dict[str, Any]], float]:
  """Return a clock that measures each network once, whoever asks.

  Args:
    folder: Where times are kept, a file a network; made when first needed.
    measure: What measures.

  Returns:
    The clock: only the spec tells networks apart.
  """

  def clock(spec: Spec, variables: dict[str, Any]) -> float:
    digest = hashlib.sha256(sp.dumps(spec).encode()).hexdigest()[:16]
    path = folder / f'{digest}.txt'
    if not path.exists():
      folder.mkdir(parents=True, exist_ok=True)
      with files.replacing(path) as file:
        file.write(repr(measure(spec, variables)).encode())
    return float(path.read_text())

  return clock
