"""How a packed network runs fastest here: which engine, floats or integers.

Every engine that is asked for runs it, at the batch size and on the cores that
the network will run with, and the clock says which is taken. In XLA a binary
layer is computed by the dense float32 kernel or by counting bits in packed
words, again whichever is faster: words are 32 signs, so that few channels are
no gain.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tsukiji.deploy import artefact, engines
from tsukiji.deploy.artefact import Artefact
from tsukiji.deploy.integer import binary_layers
from tsukiji.errors import expect
from tsukiji.measure import sampling
from tsukiji.measure.latency import COUNTING
from tsukiji.measure.sampling import Run
from tsukiji.models.spec import Spec

REPEATS = 20  # rounds of a layer, or of an engine
SECONDS = 2.0  # that they may take


class Way(NamedTuple):
  """A way to run a network.

  Attributes:
    engine: Its name, with what it computes in where that is not float32.
    counted: The layers that count bits, None where no layer could.
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
) -> Way:
  """Return a network as it runs fastest at a batch size.

  Args:
    net: What was packed.
    batch: Examples a call.
    names: Of engines; those that are not installed are left out.
    threads: Of a call.

  Returns:
    The way that takes the least time in the median.

  Raises:
    ValueError: If no engine of these names is there.
  """
  found = ways(net, batch, names, threads)
  if len(found) == 1:
    return found[0]
  runs = {way.engine: way.run for way in found}
  samples = sampling.sample(runs, repeats=REPEATS, seconds=SECONDS)
  return min(found, key=lambda way: float(np.median(samples[way.engine])))


def ways(
  net: Artefact, batch: int, names: Sequence[str], threads: int
) -> list[Way]:
  """Return a network as each engine runs it; see `fastest`."""
  there = engines.available(names)
  expect('engines', bool(there), 'one that is installed', tuple(names))
  return [
    way
    for name in there
    for way in (
      [_in_jax(net, batch)]
      if name == 'jax'
      else _elsewhere(name, net, batch, threads)
    )
  ]


def _in_jax(net: Artefact, batch: int) -> Way:
  able = binary_layers.layers(net.spec, net.variables)
  counted = choose(net, batch) if able else None
  forward = artefact.forward(net.spec, net.variables, counted or ())
  backend = jax.default_backend()
  name = 'jax' if backend == 'cpu' else f'jax:{backend}'
  name += COUNTING if counted else ''
  run = sampling.runner(net.spec.input_shape, forward, batch)
  return Way(name, counted, run)


def _elsewhere(name: str, net: Artefact, batch: int, threads: int) -> list[Way]:
  images = sampling.images(net.spec.input_shape, batch)

  def way(form: str) -> Way:
    call = engines.load(net, name, form=form, batch=batch, threads=threads)
    label = name if form == engines.FLOATS else f'{name} {form}'
    return Way(label, None, lambda: call(images))

  return [way(form) for form in engines.forms(name, net)]


def choose(
  net: Artefact, batch: int, *, repeats: int = REPEATS
) -> tuple[str, ...]:
  """Return the binary layers that counting bits makes faster, in order.

  Each layer is timed alone, floats in and floats out, in both ways in turn.
  That thresholds between two that count save a norm comes on top.

  Args:
    net: What was packed.
    batch: Examples a call.
    repeats: Rounds a layer.

  Returns:
    Names; none where the float32 kernel is faster everywhere.
  """
  found = binary_layers.layers(net.spec, net.variables)
  return tuple(
    name
    for name, one in found.items()
    if gain(one, net.variables, batch, repeats=repeats) > 1
  )


def gain(
  one: Spec, variables: dict[str, Any], batch: int, *, repeats: int = REPEATS
) -> float:
  """Return how many times as fast as in floats a layer is that counts bits.

  Args:
    one: The layer, as `binary.layers` gives it.
    variables: Of its network.
    batch: Examples a call.
    repeats: Rounds.

  Returns:
    The median ratio.
  """
  params = {one.name: variables['params'][one.name]}
  alone = {'params': params, 'batch_stats': {}}
  ways: dict[str, tuple[str, ...]] = {'floats': (), 'bits': (one.name,)}
  runs = {
    way: sampling.runner(
      one.input_shape, artefact.forward(one, alone, counted), batch
    )
    for way, counted in ways.items()
  }
  samples = sampling.sample(runs, repeats=repeats, seconds=SECONDS)
  return sampling.ratios(samples, 'floats')['bits']
