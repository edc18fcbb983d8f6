"""Networks of every framework through every command, as a table.

`python -m benchmarks.own_networks --workdir=runs/every [--only=REGEX]` trains
each network of `tests.frameworks` on handwritten digits by `main.py`,
compresses it, packs, measures and exports it, and reads its files in a process
that has none of its code. A cell says 'works', or the number of the reason
below the table.
"""

import argparse
import io
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from jax import export
from ml_collections import ConfigDict

from tests import frameworks
from tests.frameworks import CLASSES, LENGTH, TOKENS
from tsukiji import deploy, settings

# Multiply-adds of an example, counted by hand from the shapes of the layers.
MACS = {
  'Linen CNN': 64 * 9 * 8 + 64 * 9 * 8 + 64 * 64 + 16 * 320 + 16 * 576 + 24,
  'Linen transformer': 4 * 5 * 64 + 2 * 5 * 5 * 8 + 2 * 5 * 128 + 5 * 8 * 11,
  'embedding': 64 + 64 + 24,
  'LSTM': 5 * (6 * 24 + 6 * 24) + 18,
  'GRU': 5 * (6 * 18 + 6 * 18) + 18,
  'U-Net': 64 * 36 + 16 * 36 * 8 + 16 * 8 * 4 * 4 + 64 * 8 * 3,
  'nn.scan': 3 * 36 + 18,
  'nn.remat': 48 + 64 + 24,
  'nn.vmap': 48 + 2 * 24,
  'shared layer': 2 * 36 + 18,
  'NNX CNN': 64 * 72 + 16 * 576 + 24,
  'NNX transformer': 4 * 5 * 36 + 2 * 5 * 5 * 6 + 2 * 5 * 72 + 18,
  'Equinox MLP': 240 + 64 + 24,
  'Equinox conv': 36 * 72 + 4 * 576 + 96,
  'plain functions': 48 + 56 + 21,
  'partitioned': 48 + 64 + 24,
}
MACS['all bfloat16'] = MACS['mixed'] = MACS['Linen CNN']
OUTPUTS = 10
HEAD = CLASSES * OUTPUTS  # what `built` adds

READ = """
import io, sys
import numpy as np
from tsukiji import deploy
case = np.load(io.BytesIO(sys.stdin.buffer.read()))
got = deploy.load(sys.argv[1])(case['x'])
np.testing.assert_allclose(got, case['want'], rtol=1e-4, atol=1e-4)
assert not {'tests', 'benchmarks'} & {*sys.modules}
"""


def built(shape: Any, outputs: int, model: str) -> Any:
  """Return a network for images `[n, 8, 8, 1]`, with a layer of its own."""
  found = frameworks.MODELS[model]()
  like = found.inputs[0]

  def adapted(x: jax.Array) -> jax.Array:
    if jnp.issubdtype(like.dtype, jnp.integer):
      ids = jnp.round(3 * x[:, 2, :LENGTH, 0] + TOKENS // 2)
      return jnp.clip(ids, 0, TOKENS - 1).astype(like.dtype)
    if like.ndim == 4:
      return x.reshape(-1, *like.shape[1:])
    return x[:, :LENGTH, 1:7, 0].reshape(-1, *like.shape[1:])

  def init(key: jax.Array, x: jax.Array) -> Any:
    head = jax.random.normal(key, (CLASSES, outputs))
    return {'net': found.params, 'head': head}

  def apply(params: Any, x: jax.Array) -> Any:
    y = found.apply(params['net'], adapted(x))
    return y.astype(jnp.float32) @ params['head']

  return init, apply


def get_config() -> ConfigDict:
  """Return the config of all networks."""
  config = settings.default('compress')
  config.dataset.name, config.seeds, config.workers = 'digits', (0,), 1
  config.train = settings.training(epochs=2, lr=3e-3)
  config.finetune = settings.training(epochs=1, lr=2e-3)
  config.measure.repeats, config.measure.batches = 5, (1,)
  config.recipes = {
    'int8': settings.compression(
      'prune.weights(0.5) >> quantize.int8() >> distill.kd(4.0)', 'combined'
    ),
    'filters': settings.compression(
      'prune.filters(share=0.5, multiple=1)', 'channels'
    ),
  }
  config.networks = {
    slug(name): settings.network(
      'benchmarks.own_networks:built', sizes={'model': name}
    )
    for name in frameworks.MODELS
  }
  return config


def slug(name: str) -> str:
  """Return the name of a network in files."""
  return name.lower().replace(' ', '_').replace('.', '_').replace('-', '_')


def command(run: pathlib.Path, *more: str) -> str:
  """Return '' if `main.py` did its work in a workdir, else what it said."""
  where = f'--workdir={run}', f'--config={run}.py'
  done = subprocess.run(
    [sys.executable, 'main.py', *where, *more], capture_output=True, text=True
  )
  return '' if done.returncode == 0 else ' '.join(done.stderr.split())[-200:]


def written(run: pathlib.Path, name: str, recipes: Sequence[str]) -> None:
  """Write the config of one network beside its workdir."""
  run.with_suffix('.py').write_text(
    'from benchmarks import own_networks\n\n\n'
    'def get_config():\n'
    '  config = own_networks.get_config()\n'
    f'  network = config.networks[{slug(name)!r}]\n'
    f'  network.recipes = {(*recipes,)!r}\n'
    f'  config.networks = {{{slug(name)!r}: network}}\n'
    f'  config.recipes = {{r: config.recipes[r] for r in {[*recipes]!r}}}\n'
    '  return config\n'
  )


def onnx(file: pathlib.Path, x: np.ndarray, want: np.ndarray) -> None:
  """Compare a model in ONNX Runtime with JAX."""
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 4
  session = onnxruntime.InferenceSession(file.with_suffix('.onnx'), options)
  (got,) = session.run(None, {'images': x})
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def stablehlo(file: pathlib.Path, x: np.ndarray, want: np.ndarray) -> None:
  """Compare an exported program with JAX."""
  blob = file.with_suffix('.stablehlo').read_bytes()
  program = export.deserialize(bytearray(blob))
  np.testing.assert_allclose(program.call(x), want, rtol=1e-4, atol=1e-4)


def fresh(file: pathlib.Path, x: np.ndarray, want: np.ndarray) -> None:
  """Compare a file in a process without the code of the network."""
  case = io.BytesIO()
  np.savez(case, x=x, want=want)
  subprocess.run(
    [sys.executable, '-c', READ, str(file)],
    input=case.getvalue(),
    capture_output=True,
    check=True,
  )


def info(file: pathlib.Path, x: np.ndarray, want: np.ndarray) -> None:
  """Print where the bytes of a file are."""
  ask = [sys.executable, '-m', 'tsukiji.info', str(file)]
  done = subprocess.run(ask, capture_output=True, text=True, check=True)
  assert 'header' in done.stdout, done.stdout


READERS: dict[str, Callable[..., None]] = {
  'fresh process': fresh,
  'info': info,
  'ONNX': onnx,
  'StableHLO': stablehlo,
}
COLUMNS = ('train', 'recipe', 'shrink', 'MACs', *READERS)


def checked(folder: pathlib.Path, name: str) -> dict[str, str]:
  """Return why a command failed, by column; '' where it works."""
  found: dict[str, str] = dict.fromkeys(COLUMNS, '')
  run = folder / slug(name)
  written(run, name, ('int8', 'filters'))
  found['train'] = command(run, '--config.task=train')
  if command(run):  # one of the recipes: which?
    for column, recipe in (('recipe', 'int8'), ('shrink', 'filters')):
      alone = folder / f'{slug(name)}_{recipe}'
      written(alone, name, (recipe,))
      found[column] = command(alone)
      run = run if found[column] else alone
  said = command(run, '--config.task=export')
  text = (run / 'results.json').read_text()
  rows = {row['name'].split('-')[-1]: row for row in json.loads(text)['rows']}
  macs, want = rows['dense']['macs'], MACS[name] + HEAD
  found['MACs'] = '' if macs == want else f'{macs} MACs, by hand {want}'
  if 'filters' in rows and rows['filters']['mac_fraction'] >= 1:
    found['shrink'] = 'nothing was removed'
  x = np.float32(np.random.default_rng(0).uniform(0, 16, (5, 8, 8, 1)))
  for column, reader in READERS.items():
    found[column] = said
    for file in sorted((run / 'artefacts').glob('*.tsk')):
      try:
        reader(file, x, np.asarray(deploy.load(file)(x)))
      except Exception as e:  # whatever a reader raises is the answer
        found[column] += f'{file.stem}: {" ".join(str(e).split())[:200]} '
  return found


def main(args: Sequence[str] | None = None) -> None:
  """Print the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', required=True, type=pathlib.Path)
  parser.add_argument('--only', default='.*', help='which networks')
  given = parser.parse_args(args)
  folder = given.workdir.absolute()
  folder.mkdir(parents=True, exist_ok=True)
  print('| network |', ' | '.join(COLUMNS), '|')
  print('|---|', '---|' * len(COLUMNS), sep='')
  reasons: list[str] = []
  for name in frameworks.MODELS:
    if not re.search(given.only, name):
      continue
    cells = []
    for column, why in checked(folder, name).items():
      cells.append(f'[{len(reasons) + 1}]' if why else 'works')
      reasons += [f'{name}, {column}: {why}'] if why else []
    print(f'| {name} |', ' | '.join(cells), '|', flush=True)
  for i, reason in enumerate(reasons, 1):
    print(f'\n{i}. {reason}')


if __name__ == '__main__':
  main()
