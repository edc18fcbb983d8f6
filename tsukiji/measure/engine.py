"""How a packed network runs fastest here: floats, or bits that are counted.

A binary layer is computed by the dense float32 kernel or by counting bits in
packed words, whichever the clock says, at the batch size and on the cores that
the network will run with. Which one wins hangs on the processor and on the
layer: words are 32 signs, so that few channels are no gain.
"""

from typing import Any

from tsukiji.deploy import artefact, binary
from tsukiji.deploy.artefact import Artefact
from tsukiji.measure import sampling
from tsukiji.measure.sampling import Run
from tsukiji.spec import Spec

REPEATS = 20  # rounds of a layer
SECONDS = 2.0  # that they may take


def fastest(net: Artefact, batch: int) -> tuple[tuple[str, ...] | None, Run]:
  """Return a network as it runs fastest at a batch size.

  Args:
    net: What was packed.
    batch: Examples a call.

  Returns:
    The layers that count bits, None where no layer could; and a compiled call
    on random images.
  """
  able = binary.layers(net.spec, net.variables)
  counted = choose(net, batch) if able else None
  forward = artefact.forward(net.spec, net.variables, counted or ())
  return counted, sampling.runner(net.spec.input_shape, forward, batch)


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
  found = binary.layers(net.spec, net.variables)
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
