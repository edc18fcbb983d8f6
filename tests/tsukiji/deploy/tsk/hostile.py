"""Files that ask for far more than they hold."""

import json
from collections.abc import Callable
from typing import Any

from tsukiji.deploy.tsk import header
from tsukiji.deploy.tsk.header import Slot
from tsukiji.deploy.tsk.node_forms import from_json
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec


def network(*layers: sp.Layer, shape: tuple[int, ...] = (1, 1, 1)) -> Any:
  """Return a network as JSON."""
  return json.loads(sp.dumps(Spec(name='n', input_shape=shape, layers=layers)))


def flat(outputs: int) -> Any:
  """Return a network of one dense layer."""
  return network(sp.Flatten(), sp.Dense(name='fc', features=outputs))


def sealed(spec: Any, params: Any, meta: Any = None) -> bytes:
  """Return a file with a right checksum; its arrays are of one byte each."""
  slots: list[Slot] = []
  from_json('', params, slots.append)  # type: ignore[arg-type]
  fields = {'a': [1] * len(slots), 'm': meta or {}, 's': spec}
  fields['v'] = {'params': params}
  total = sum(slot.bytes for slot in slots)
  return header.seal(fields, total, [b'\0'] * len(slots))


def kernel(node: Any, outputs: int = 1) -> bytes:
  """Return a file of one dense layer with a kernel that is a node."""
  held = {'kernel': node, 'bias': f'f4 {outputs}'}
  return sealed(flat(outputs), {'fc': held})


def node(kind: str, **fields: Any) -> dict[str, Any]:
  """Return a node as JSON."""
  return {'': kind, **fields}


def tiles(family: str, block: int, lines: int, held: Any) -> bytes:
  """Return one tile, of which one entry is used."""
  values = f'f4 1 1 {lines} {block}'
  plain = {'gain': None, 'family': family, 'shape': [1, 1]}
  return kernel(node('Structured', values=values, held=held, **plain))


def moved(family: str, values: str, extent: int) -> bytes:
  """Return one filter among its moves."""
  return sealed(
    network(sp.Conv(name='fc', features=1, kernel=(1, 1), bias=False)),
    {
      'fc': {
        'kernel': node(
          'Transferred',
          values=values,
          order='i4 1',
          gain=None,
          family=family,
          extent=extent,
          shape=[1, 1, 1, 1],
        )
      }
    },
  )


def hashed(*shape: int) -> dict[str, Any]:
  """Return a hashed weight of one number."""
  return node('Hashed', values='f4 1', seed=0, shape=[*shape], gain=None)


def low_rank(u: Any, v: Any) -> dict[str, Any]:
  """Return a product."""
  return node('LowRank', u=u, v=v)


def many_nodes(count: int) -> bytes:
  """Return small nodes of as many shapes."""
  params = {}
  for i in range(count):
    params[f'w{i}'] = low_rank(f'f4 1 {i + 1}', f'f4 {i + 1} 1')
  return sealed(network(sp.Flatten()), params)


N = 36_000
OUTER = low_rank(f'f4 {N} 1', f'f4 1 {N}')
ATTACKS: dict[str, tuple[str, Callable[[], bytes]]] = {
  'circulant': (
    'nodes that decode in at most',
    lambda: tiles('circulant', 16_384, 1, 'b1 1 16384'),
  ),
  'circulant, larger': (
    'nodes that decode in at most',
    lambda: tiles('circulant', 65_536, 1, 'b1 1 65536'),
  ),
  'toeplitz': (
    'nodes that decode in at most',
    lambda: tiles('toeplitz', 16_384, 2, None),
  ),
  'toeplitz of high rank': (
    'nodes that decode in at most',
    lambda: tiles('toeplitz', 1024, 2048, None),
  ),
  'hadamard': (
    'nodes that decode in at most',
    lambda: tiles('fastfood', 2**14, 3, f'i4 {2**14}'),
  ),
  'butterfly': (
    'nodes that decode in at most',
    lambda: tiles('butterfly', 2**14, 28, None),
  ),
  'a factor of a factor': (
    'nodes that decode in at most',
    lambda: kernel(low_rank(f'f4 1 {N}', low_rank(OUTER, f'f4 {N} 1'))),
  ),
  'hashed in a factor': (
    'nodes that decode in at most',
    lambda: kernel(low_rank(hashed(1, 2**24), hashed(2**24, 1))),
  ),
  'hashed inside hashed': (
    'an array values at params/fc/kernel',
    lambda: kernel({**hashed(1, 1), 'values': hashed(2**24)}),
  ),
  'an outer product': (
    'arrays of at most',
    lambda: kernel(low_rank(f'f4 1 {N} 1', f'f4 1 1 {N}')),
  ),
  'copies': (
    'nodes that decode in at most',
    lambda: moved('copies', 'f4 1 1 1 1', 2**24),
  ),
  'crops': (
    'nodes that decode in at most',
    lambda: moved('crops', 'f4 2001 2001 1 1', 2000),
  ),
  'zeros around': (
    'arrays of at most',
    lambda: kernel(node('Sliced', w='f4 1 1', keep='i4 1', axis=0, size=2**24)),
  ),
  'many multiplications': (
    'nodes of at most',
    lambda: tiles('toeplitz', 1024, 6, None),
  ),
  'nodes of many shapes': ('kinds of nodes', lambda: many_nodes(300)),
  'nodes inside each other': (
    'nodes inside each other',
    lambda: kernel(nested('f4 1 1', 40)),
  ),
  '20,000 arrays': (
    'at most .* arrays',
    lambda: sealed(flat(1), {f'w{i}': 'f4' for i in range(20_000)}),
  ),
  '20,000 layers': (
    'at most .* operations',
    lambda: sealed(network(*[sp.Act()] * 10_000), {}),
  ),
  'a window of many places': (
    'at most .* operations',
    lambda: sealed(
      network(sp.Pool(window=(4096, 4096)), shape=(4096, 4096, 1)), {}
    ),
  ),
  'a large image': (
    'examples that take at most',
    lambda: sealed(network(sp.GlobalMean(), shape=(60_000, 60_000, 3)), {}),
  ),
  'large activations': (
    'examples that take at most',
    lambda: sealed(
      network(
        sp.Conv(
          name='fc', features=64, kernel=(1, 1), padding='SAME', bias=False
        ),
        shape=(4096, 4096, 1),
      ),
      {'fc': {'kernel': 'f4 1 1 1 64'}},
    ),
  ),
  'images of many axes': (
    'images of at most',
    lambda: sealed(network(shape=(1,) * 1000), {}),
  ),
  'long names': (
    'paths of at most',
    lambda: header.seal(
      {'a': [], 'm': {}, 's': flat(1), 'v': {'params': {'n' * 9999: {}}}}, 0, []
    ),
  ),
}


def nested(inner: Any, count: int) -> Any:
  """Return nodes inside each other."""
  for _ in range(count):
    inner = node(
      'Signed', w=inner, threshold=None, gradient='clipped', sized=False
    )
  return inner
