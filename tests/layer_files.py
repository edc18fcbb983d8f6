"""Writes files of format 2, which store layers; they are read, not written.

Graphs replaced them: `tsukiji.deploy.tsk.pack`.
"""

import json
from typing import Any

import numpy as np

from compress import tree
from tsukiji.deploy.tsk import coding, header, limits
from tsukiji.deploy.tsk.node_forms import to_json
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec


def pack_layers(
  spec: Spec,
  variables: dict[str, Any],
  meta: dict[str, Any] | None = None,
  coded_floats: bool = True,
) -> bytes:
  """Return a network of layers as one file of format 2."""
  frozen = {**variables, 'params': tree.freeze(variables['params'])}
  arrays: list[np.ndarray] = []
  fields: dict[str, Any] = {'s': json.loads(sp.dumps(spec)), 'm': meta or {}}
  fields['v'] = to_json('', frozen, arrays)
  parts = [coding.encode(x, coded_floats) for x in arrays]
  fields['a'] = [*map(len, parts)]
  total = sum(x.nbytes for x in arrays)
  blob = header.seal(fields, total, parts, header.LAYERS)
  sizes = limits.check_tree(frozen, len(arrays), len(blob))
  limits.check_network(spec, sizes.bytes, len(blob))
  return blob
