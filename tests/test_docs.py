"""The README and the docs are run: their commands, code, tables and links."""

import importlib
import importlib.util
import inspect
import itertools
import json
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from compress import recipe
from tests import test_laws
from tests.commands import ROOT, once, workdir
from tests.runs import TINY, calibrated, start
from tsukiji import report
from tsukiji.experiments import publish
from tsukiji.report.across import families, limitations

PAGES = {str(p.relative_to(ROOT)): p.read_text() for p in publish.pages(ROOT)}
README = PAGES['README.md']


def blocks(text: str, language: str) -> list[str]:
  """Return the code blocks of a page in one language."""
  return re.findall(rf'^```{language}\n(.*?)^```', text, re.S | re.M)


COMMANDS = sorted(
  {
    line.split(' #')[0].strip()
    for text in PAGES.values()
    for block in blocks(text, 'sh')
    for line in block.splitlines()
    if line.strip()
  }
)
MAIN = [c for c in COMMANDS if c.startswith('python main.py ')]
TABLES = [(name, t) for name, x in PAGES.items() for t in publish.tables(x)]
# Targets of links and pictures, relative to their page.
LINKS = [
  (name, target)
  for name, text in PAGES.items()
  for target in re.findall(r'\]\(([^)\s]+)\)', text)
  if not target.startswith(('http', '#'))
]


def test_readme_fits_a_page() -> None:
  assert len(README.splitlines()) <= 150


def test_every_command_is_of_a_known_program() -> None:
  known = ('make ', 'python main.py ', 'python -m ', 'pip install', 'apt-get ')
  assert len(COMMANDS) >= 15
  for line in COMMANDS:
    assert line.startswith(known), line


@pytest.mark.parametrize('line', [c for c in COMMANDS if c.startswith('make ')])
def test_make_targets_exist(line: str) -> None:
  subprocess.run(
    [*line.split(), '--dry-run'], cwd=ROOT, check=True, capture_output=True
  )


@pytest.mark.parametrize(
  'line', [c for c in MAIN if 'configs/quickstart.py' in c]
)
def test_quickstart_commands_run(
  line: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
  """Run them on the ':tiny' form, in the workdir that `test_main` uses."""
  folder = workdir(tmp_path_factory, 'quickstart')
  first, *words = shlex.split(line)[2:]
  kept = [w for w in words if not w.startswith('--workdir=')]
  kept = [re.sub('(epochs)=.*', r'\1=1', w) for w in kept]
  config = first.removesuffix(':tiny') + ':tiny'
  done = once(folder, config, f'--workdir={folder}', *kept)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  'line', [c for c in MAIN if 'configs/quickstart.py' not in c]
)
def test_other_commands_name_a_config_and_its_fields(line: str) -> None:
  """`test_main` runs the ':tiny' form of every config."""
  first, *words = shlex.split(line)[2:]
  file, _, arg = first.removeprefix('--config=').partition(':')
  assert file.startswith('configs/') and (ROOT / file).is_file()
  module = importlib.import_module(f'configs.{pathlib.Path(file).stem}')
  config = module.get_config(arg)
  for word in words:
    flag = word.removeprefix('--').partition('=')[0]
    if flag != 'workdir':
      assert flag.removeprefix('config.') in config_fields(config), word


def config_fields(config: Any) -> set[str]:
  """Return the dotted names of all fields of a config."""
  found = set()
  for name, value in config.items():
    found.add(name)
    if isinstance(value, ConfigDict):
      found |= {f'{name}.{inner}' for inner in config_fields(value)}
  return found


@pytest.mark.parametrize(
  'line', [c for c in COMMANDS if c.startswith('python -m ')]
)
def test_modules_are_there(
  line: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
  module, *words = shlex.split(line)[2:]
  assert importlib.util.find_spec(module)
  if module == 'tsukiji.info':
    folder = workdir(tmp_path_factory, 'quickstart')
    args = ('--config=configs/quickstart.py:tiny', f'--workdir={folder}')
    assert once(folder, *args).returncode == 0
    path = folder / 'artefacts' / pathlib.Path(words[0]).name
    command = [sys.executable, '-m', module, path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def run(name: str) -> dict[str, Any]:
  """Run the Python of a page in one namespace, and return that."""
  names: dict[str, Any] = {}
  for block in blocks(PAGES[name], 'python'):
    exec(compile(block, name, 'exec'), names)
  return names


@pytest.mark.parametrize(
  'name', [n for n, text in PAGES.items() if blocks(text, 'python')]
)
def test_code_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(ROOT)
  check = CHECKS.get(name, len)
  check(run(name))


def check_readme(names: dict[str, Any]) -> None:
  """Check what the README says of its example."""
  codes = [
    leaf.ravel()
    for leaf in map(np.asarray, jax.tree.leaves(names['small']))
    if leaf.dtype == np.int8
  ]
  flat = np.concatenate(codes)
  assert len(flat) == 64 * 300 + 300 * 10
  assert np.abs(flat).max() == 2**3 - 1
  assert np.mean(flat == 0) >= 0.9
  assert names['exported'].written.keys() == {'onnx', 'stablehlo'}
  # On the grid: 8 is the largest power, 3 is as near to 2 as to 4.
  node = names['PowerOfTwo'](np.float32([5.0, -0.3, 0.0, 3.1, 7.0]))
  assert node.decode().tolist() == [4.0, -0.25, 0.0, 4.0, 8.0]


CHECKS: dict[str, Callable[[dict[str, Any]], Any]] = {'README.md': check_readme}
ALONE = 'readme.power_of_two()'
PRUNED = 'prune.weights(0.6, scope="global", schedule=cubic(0.0, 0.5))'


@pytest.fixture(scope='module')
def row() -> Any:
  """Put the README's method into the table of recipes, as one row."""
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(ROOT)
    made = run('README.md')['power_of_two']
    patch.setitem(recipe.TABLE, 'readme.power_of_two', made)
    yield


def laws() -> dict[str, Callable[[str], None]]:
  """Return the laws that hold for every recipe, by name."""
  return {
    name: law
    for name, law in vars(test_laws).items()
    if name.startswith('test_')
    and [*inspect.signature(law).parameters] == ['text']
    and 'zero_at_the_end' not in name
  }


@pytest.mark.usefixtures('row')
@pytest.mark.parametrize(
  ('name', 'text'),
  [*itertools.product(laws(), (ALONE, f'{PRUNED} >> {ALONE}'))],
)
def test_the_method_of_the_readme_keeps_the_law(name: str, text: str) -> None:
  laws()[name](text)


@pytest.mark.usefixtures('row')
def test_the_method_of_the_readme_keeps_zeros() -> None:
  assert len(laws()) >= 10
  test_laws.test_pruned_positions_are_zero_at_the_end(f'{PRUNED} >> {ALONE}')


@pytest.mark.usefixtures('row')
def test_the_method_of_the_readme_is_a_grid() -> None:
  both = recipe.parse(f'{ALONE} >> quantize.int8()')
  with pytest.raises(ValueError, match='one quantization method'):
    both.init(start(TINY)['params'], calibrated(TINY))


@pytest.mark.parametrize('name', recipe.TABLE)
def test_every_recipe_is_described(name: str) -> None:
  _, _, after = PAGES['docs/methods.md'].partition(f'\n### `{name}`\n')
  section = after.partition('\n### ')[0]
  assert section
  for part in ('- **Paper**: ', '- **Use**: ', '- **Cost**: '):
    assert section.count(part) == 1


@pytest.mark.parametrize(('name', 'table'), TABLES)
def test_tables_come_from_results(name: str, table: publish.Table) -> None:
  path = ROOT / table.source
  assert path.exists(), f'{name} quotes {table.source}: run and publish it'
  if path.suffix == '.toml':
    want = publish.answers(ROOT, table.source)
  else:
    rows = publish.rows_of(path)
    want = report.markdown(rows, table.named, table.heads)
  assert table.text.strip() == want.strip()


def test_limitations_ask_for_rows_that_are_there() -> None:
  asked = limitations.parse((ROOT / 'docs' / 'limitations.toml').read_text())
  for one in asked:
    path = ROOT / 'results' / f'{one.source}.json'
    config = ROOT / 'configs' / f'{one.source}.py'
    assert not one.source or path.exists() or config.exists(), one
    rows = json.loads(path.read_text())['rows'] if path.exists() else []
    there = {f'{row["network"]}/{row["recipe"]}' for row in rows}
    assert not there or {one.row, one.other} <= there, one


def test_families_show_rows_that_are_there() -> None:
  table = publish.answers(ROOT, 'docs/families.toml')
  assert families.MISSING not in table


@pytest.mark.parametrize(('name', 'target'), LINKS)
def test_links_lead_somewhere(name: str, target: str) -> None:
  path = (ROOT / name).parent / target.partition('#')[0]
  assert path.exists()
  if path.suffix == '.png':
    assert path.read_bytes()[:4] == b'\x89PNG'


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
  reached, new = set(), {'README.md'}
  while new:
    reached |= new
    new = {
      str(path.relative_to(ROOT))
      for name, target in LINKS
      if name in new
      and (path := ((ROOT / name).parent / target).resolve()).suffix == '.md'
    } - reached
  assert PAGES.keys() <= reached
