"""The fastest way to run a packed network on this machine.

Every engine given is timed at the batch size and number of threads in question.
In XLA a binary layer runs as a dense float32 kernel or on packed words of 32
signs with popcounts, again whichever is faster: with few channels the words are
mostly padding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tsukiji.deploy import artefact, engines
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.integer import binary_layers
from tsukiji.errors import expect
from tsukiji.graph.nodes import Graph
from tsukiji.measure import sampling
from tsukiji.measure.sampling import Run

REPEATS = 20  # rounds of a layer, or of an engine
SECONDS = 2.0  # that they may take
COUNTING = ' with popcounts'  # suffix of the name of an engine


class Candidate(NamedTuple):
  """A way to run a network.

  Attributes:
    engine: Its name, with what it computes in where that is not float32.
    counted: The layers that use popcounts; None where no layer could.
    run: A call on random images.
  """

  engine: str
  counted: tuple[str, ...] | None
  run: Run


def fastest(
  net: Artefact,
  batch: int,
  names: Sequence[str] = ('jax',),
  threads: int = 1,
) -> Candidate:
  """Return the fastest way to run a network at a batch size.

  Args:
    net: The packed network.
    batch: Examples per call.
    names: Names of engines; those not installed are skipped.
    threads: Of a call.

  Returns:
    The candidate of least median time.

  Raises:
    ValueError: If none of these engines is installed.
  """
  found = candidates(net, batch, names, threads)
  if len(found) == 1:
    return found[0]
  runs = {candidate.engine: candidate.run for candidate in found}
  samples = sampling.sample(runs, repeats=REPEATS, seconds=SECONDS)
  return min(
    found, key=lambda candidate: float(np.median(samples[candidate.engine]))
  )


def is_same_program(
  net: Artefact, other: Artefact, names: Sequence[str] = ('jax',)
) -> bool:
  """Return whether two networks run as one program with other constants.

  A mask on dense kernels and a grid without input grids are decoded to float32
  kernels when the network is loaded, so that no engine but `c`, which skips
  zeros, can run them faster or slower than the dense network: a ratio of their
  times is noise.

  Args:
    net: The packed network.
    other: The packed network to compare with.
    names: Names of engines.

  Returns:
    Whether XLA gets the same program, no engine gets integers, and the C file
    skips no zeros.
  """
  floats = (engines.FLOATS,)
  there = engines.available(names)
  same = all(
    engines.forms(name, one) == floats for one in (net, other) for name in there
  )
  if same and 'c' in there:
    same = engines.written(net).program == engines.written(other).program
  return same and _program(net) == _program(other)


def _program(net: Artefact) -> str:
  """Return the operations and shapes of a network, without its numbers."""
  one = jax.ShapeDtypeStruct((1, *net.inputs[0].shape), np.float32)
  return str(jax.make_jaxpr(net.run)(one))


def candidates(
  net: Artefact, batch: int, names: Sequence[str], threads: int
) -> list[Candidate]:
  """Return the ways in which the engines run a network; see `fastest`."""
  there = engines.available(names)
  expect('engines', bool(there), 'one that is installed', tuple(names))
  return [
    candidate
    for name in there
    for candidate in (
      [_in_jax(net, batch)]
      if name == 'jax'
      else _elsewhere(name, net, batch, threads)
    )
  ]


def _in_jax(net: Artefact, batch: int) -> Candidate:
  counted, forward = None, net.run
  if binary_layers.layers(net.network, net.variables):
    counted = choose(net, batch)
  if counted:
    forward = binary_layers.forward(net.network, net.variables, counted)
  backend = jax.default_backend()
  name = 'jax' if backend == 'cpu' else f'jax:{backend}'
  name += COUNTING if counted else ''
  run = sampling.runner(net.inputs[0].shape, forward, batch)
  return Candidate(name, counted, run)


def _elsewhere(
  name: str, net: Artefact, batch: int, threads: int
) -> list[Candidate]:
  images = sampling.images(net.inputs[0].shape, batch)

  def candidate(form: str) -> Candidate:
    call = engines.load(net, name, form=form, batch=batch, threads=threads)
    label = name if form == engines.FLOATS else f'{name} {form}'
    return Candidate(label, None, lambda: call(images))

  return [candidate(form) for form in engines.forms(name, net)]


def choose(
  net: Artefact, batch: int, *, repeats: int = REPEATS
) -> tuple[str, ...]:
  """Return the binary layers that popcounts make faster, in order.

  Each layer is timed by itself, from floats to floats, alternately in both
  ways; that thresholds between two of them save a norm is not counted.

  Args:
    net: The packed network.
    batch: Examples a call.
    repeats: Rounds a layer.

  Returns:
    Names; none where the float32 kernel is faster everywhere.
  """
  found = binary_layers.layers(net.network, net.variables)
  return tuple(
    name
    for name, one in found.items()
    if gain(*one, batch, repeats=repeats) > 1
  )


def gain(
  one: Graph, variables: dict[str, Any], batch: int, *, repeats: int = REPEATS
) -> float:
  """Return the speed-up of a layer with popcounts over float32.

  Args:
    one: The layer, as `binary_layers.layers` gives it.
    variables: Its weight.
    batch: Examples a call.
    repeats: Rounds.

  Returns:
    The median ratio.
  """
  ways = {
    'floats': artefact.forward(one, variables),
    'bits': binary_layers.forward(one, variables),
  }
  runs = {
    name: sampling.runner(one.inputs[0].shape, way, batch)
    for name, way in ways.items()
  }
  samples = sampling.sample(runs, repeats=repeats, seconds=SECONDS)
  return sampling.ratios(samples, 'floats')['bits']
