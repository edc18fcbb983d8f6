"""Energy per inference: measured where counters can be read, else modeled.

`rapl` and `measure` read the processor's own counters; `model` multiplies
operation and memory counts by a published table. The source goes with the
number: a model compares networks, it does not predict a meter.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from compress.tree import Params
from tsukiji.graph.nodes import Graph
from tsukiji.measure import cost
from tsukiji.measure.cost import LayerCost

POWERCAP = Path('/sys/class/powercap')
MEASURED = 'measured:rapl'


class Table(NamedTuple):
  """The energy of operations and memory accesses, in pJ.

  Supply another one for the numbers of a device of your own.

  Attributes:
    name: Of the source, for `Energy.source`.
    add: By operand: 'int8', 'int16', 'int32', 'fp16', 'fp32'.
    multiply: By operand; a width that is not listed uses the next wider row.
    sram: `(bytes, pJ)`: a read of 64 bits from a memory of that size, small
      to large.
    dram: A read of 64 bits from DRAM.
  """

  name: str
  add: dict[str, float]
  multiply: dict[str, float]
  sram: tuple[tuple[int, float], ...]
  dram: float


# Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9: 45 nm,
# 0.9 V. DRAM is given as 1300-2600 pJ; we take the lower.
HOROWITZ45 = Table(
  name='horowitz45',
  add={'int8': 0.03, 'int16': 0.05, 'int32': 0.1, 'fp16': 0.4, 'fp32': 0.9},
  multiply={'int8': 0.2, 'int32': 3.1, 'fp16': 1.1, 'fp32': 3.7},
  sram=((8 * 1024, 10.0), (32 * 1024, 20.0), (1024 * 1024, 100.0)),
  dram=1300.0,
)


class Energy(NamedTuple):
  """Modelled microjoules of one inference at batch 1.

  Attributes:
    compute: Multiply-accumulates.
    weights: Reading the packed network from DRAM once.
    activations: Reading inputs and writing outputs of weighted layers.
    per_layer: `(compute, activations)` by layer name.
    source: 'model:' and the name of the table.
  """

  compute: float
  weights: float
  activations: float
  per_layer: dict[str, tuple[float, float]]
  source: str

  @property
  def total(self) -> float:
    """The sum of the three parts, microjoules."""
    return self.compute + self.weights + self.activations


def model(
  graph: Graph,
  params: Params,
  stored_bytes: int,
  table: Table = HOROWITZ45,
) -> Energy:
  r"""Model the energy of one inference at batch 1.

  $E = \sum_l n_l (e_\times + e_+) + \frac{B}{8} e_{DRAM}
  + \sum_l \frac{A_l}{8} e_{mem}(A_l)$ with $n_l$ MACs, $B$ stored bytes and
  $A_l$ the bytes of a layer's input, and of its output.

  Assumptions: zeros are multiplied like any other number (dense kernels).
  Operands have their declared width: integers only where weight and input
  both have a grid, summed in int32, else float32. Weights stream in from DRAM
  once, at their packed size. Each weighted layer reads its input and writes
  its output once, at the width of its input, in the smallest memory that
  holds it (DRAM if none does); a write costs what a read costs; norms,
  activations and pools are fused into the layer before them.

  Args:
    graph: The network, lowered.
    params: Its parameters.
    stored_bytes: Size of the packed network.
    table: What operations cost.

  Returns:
    Microjoules, in parts.

  Raises:
    ValueError: If `stored_bytes` is negative.
  """
  if stored_bytes < 0:
    raise ValueError(
      f'energy.model: expected stored_bytes of at least 0, got '
      f'{stored_bytes!r}. It is the size of the packed network.'
    )
  parts = {
    c.name: (_compute(c, table), _activations(c, table))
    for c in cost.layers(graph, params)
  }
  return Energy(
    compute=sum(compute for compute, _ in parts.values()),
    weights=stored_bytes / 8 * table.dram * 1e-6,
    activations=sum(moved for _, moved in parts.values()),
    per_layer=parts,
    source=f'model:{table.name}',
  )


def _compute(layer: LayerCost, table: Table) -> float:
  """Return the microjoules of a layer's multiply-accumulates."""
  bits = max(layer.weight_bits, layer.activation_bits)
  if bits >= cost.FLOAT_BITS:
    each = table.multiply['fp32'] + table.add['fp32']
  else:
    each = _integer(table.multiply, bits) + table.add['int32']
  return layer.macs * each * 1e-6


def _integer(row: dict[str, float], bits: int) -> float:
  """Return the entry of the narrowest integer that holds `bits`."""
  widths = {int(k[3:]): pj for k, pj in row.items() if k.startswith('int')}
  return widths[min(width for width in widths if width >= bits)]


def _activations(layer: LayerCost, table: Table) -> float:
  """Return the microjoules of reading a layer's input, writing its output."""
  width = layer.activation_bits / 8
  sizes = [math.prod(s) * width for s in (layer.before, layer.after)]
  return sum(n / 8 * memory(n, table) for n in sizes) * 1e-6


def memory(size: float, table: Table) -> float:
  """Return the pJ of reading 64 bits from a memory of so many bytes."""
  fitting = [pj for capacity, pj in table.sram if size <= capacity]
  return fitting[0] if fitting else table.dram


class Domain(NamedTuple):
  """One energy counter.

  Attributes:
    counter: File with microjoules since some moment.
    span: Microjoules at which the counter starts again from 0.
  """

  counter: Path
  span: int


class Reader(NamedTuple):
  """The counters of all processor packages and their memory."""

  domains: tuple[Domain, ...]

  def read(self) -> tuple[int, ...]:
    """Return the counters now, microjoules."""
    return tuple(_number(d.counter) for d in self.domains)

  def spent(self, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """Return the microjoules between two reads less than a wrap apart."""
    pairs = zip(self.domains, before, after, strict=True)
    return sum((b - a) % d.span for d, a, b in pairs)


def rapl(root: Path = POWERCAP) -> Reader | None:
  """Return a reader of the processor's energy counters.

  Packages and their DRAM are summed. Cores and graphics are part of a
  package, 'psys' contains them all: those are left out.

  Args:
    root: The powercap directory of sysfs.

  Returns:
    The reader, or None where there is no counter that may be read (virtual
    machines; most systems let only root read them).
  """
  domains = [_domain(zone) for zone in sorted(root.glob('intel-rapl:*'))]
  found = tuple(d for d in domains if d)
  return Reader(found) if found else None


def _domain(zone: Path) -> Domain | None:
  """Return the counter of a zone, or None if it is not to be summed."""
  counter = zone / 'energy_uj'
  try:
    name = (zone / 'name').read_text().strip()
    span = _number(zone / 'max_energy_range_uj')
    _number(counter)
  except (OSError, ValueError):
    return None
  wanted = name.startswith('package') or name == 'dram'
  return Domain(counter, span) if wanted and span > 0 else None


def _number(path: Path) -> int:
  return int(path.read_text())


def measure(
  run: Callable[[], Any],
  seconds: float = 10.0,
  reader: Reader | None = None,
  *,
  clock: Callable[[], float] = time.perf_counter,
  sleep: Callable[[float], None] = time.sleep,
) -> float | None:
  """Measure the energy of a call minus that of the idle machine.

  The counters cover the entire machine: run nothing else meanwhile. Idle power
  is taken before and after, half as long each, so that drift cancels.

  Args:
    run: What to measure; its result is waited for.
    seconds: How long to repeat it; at least seconds, since counters move in
      steps of about 1 ms, and less than a wrap (minutes at full power).
    reader: The result of `rapl()`.
    clock: Seconds now.
    sleep: Waits for seconds.

  Returns:
    Microjoules per call, or None without a reader or when the calls cannot be
    distinguished from idle.
  """
  if reader is None:
    return None

  def busy() -> int:
    calls, start = 0, clock()
    while clock() - start < seconds:
      jax.block_until_ready(run())
      calls += 1
    return calls

  def watch(body: Callable[[], Any]) -> tuple[Any, int, float]:
    before, start = reader.read(), clock()
    result = body()
    return result, reader.spent(before, reader.read()), clock() - start

  jax.block_until_ready(run())
  _, idle, rest = watch(lambda: sleep(seconds / 2))
  calls, spent, took = watch(busy)
  _, more, longer = watch(lambda: sleep(seconds / 2))
  above = spent - (idle + more) / (rest + longer) * took
  return above / calls if above > 0 else None
