"""A process that loads files and says what they took."""

import json
import pathlib
import select
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from tests.fuzz.edits import sealed, seeds
from tsukiji.deploy import artefact
from tsukiji.deploy.tsk import header, limits
from tsukiji.deploy.tsk.header import Slot
from tsukiji.deploy.tsk.node_forms import from_json

MEMORY = 64 * 2**20  # bytes, in addition to those that a file declares
SECONDS = 8.0  # of the processor, plus those for each megabyte
SILENCE = 600.0  # seconds after which a process counts as blocked
ADDRESSES = (
  6 * 2**30
)  # bytes of address space in addition to those at the start


class Loader:
  """A process that loads files, one a line, and answers what they took."""

  def __init__(self) -> None:
    self.count = 0
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'tests.fuzz.loader'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def load(self, path: pathlib.Path) -> dict[str, Any]:
    """Return what a file took; the process has ended if it has no answer."""
    assert self.process.stdin and self.process.stdout
    self.count += 1
    self.process.stdin.write(f'{path}\n')
    self.process.stdin.flush()
    ready, _, _ = select.select([self.process.stdout], [], [], SILENCE)
    line = self.process.stdout.readline() if ready else ''
    if line:
      found: dict[str, Any] = json.loads(line)
      return found
    self.process.kill()
    _, error = self.process.communicate()
    words = error.strip().splitlines()[-1:] or ['nothing']
    return {'wrong': f'the process said {words[0][:200]} and ended'}

  def close(self) -> None:
    """End the process."""
    self.process.kill()
    self.process.communicate()


def answer(path: pathlib.Path) -> dict[str, Any]:
  """Load a file, run an example, and return what that took."""
  blob = path.read_bytes()
  declared = _declared(blob)
  start, before = time.process_time(), _memory('VmRSS')
  pathlib.Path('/proc/self/clear_refs').write_text('5')
  outcome = 'loaded'
  net = None
  try:
    net = artefact.load(path)
  except ValueError:
    outcome = 'refused'
  seconds, taken = time.process_time() - start, _memory('VmHWM') - before
  wrong = ''
  if taken > 10 * declared + MEMORY:
    wrong = f'loading took {taken} bytes, {declared} declared'
  if seconds > SECONDS + 2 * declared / 2**20:
    wrong = f'loading took {seconds:.1f} s, {declared} declared'
  if net is not None and not wrong:
    wrong = _called(net)
  return {'wrong': wrong, 'outcome': outcome, 'seconds': seconds}


def _called(net: artefact.Artefact) -> str:
  """Run one example; return what was wrong with that."""
  before = _memory('VmRSS')
  pathlib.Path('/proc/self/clear_refs').write_text('5')
  images = [np.zeros((1, *x.shape), x.dtype) for x in net.inputs]
  jax.block_until_ready(net(*images))
  taken = _memory('VmHWM') - before
  announced = 8 * net.weight_bytes + net.example_bytes
  if taken > announced + MEMORY:
    return f'a call took {taken} bytes, {announced} announced'
  return ''


def _declared(blob: bytes) -> int:
  """Return the bytes that a header declares, 0 if it is refused."""
  slots: list[Slot] = []

  def note(slot: Slot) -> Slot:
    slots.append(slot)
    return slot

  try:
    tree = from_json('', header.unseal(blob).fields['v'], note)
    return limits.check_tree(tree, len(slots), len(blob)).bytes
  except (ValueError, LookupError, RecursionError):
    return 0


def _memory(name: str) -> int:
  """Return a number of bytes of this process, as Linux counts it."""
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{name}:'):
      return 1024 * int(line.split()[1])
  raise OSError(f'/proc/self/status: expected {name}')


def _warm_up() -> None:
  """Load good files first: what JAX takes once is not what a file takes."""
  known = seeds()
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'good.tsk'
    for seed in (known[0], known[-1]):  # a graph, and layers
      path.write_bytes(sealed(seed.fields, seed.parts))
      answer(path)


def serve() -> None:
  """Answer the files whose paths come in, in limited memory."""
  import resource

  full = _memory('VmSize') + ADDRESSES
  resource.setrlimit(resource.RLIMIT_AS, (full, full))
  _warm_up()
  for line in sys.stdin:
    path = pathlib.Path(line.strip())
    try:
      found = answer(path)
    except Exception as e:  # what the run looks for
      found = {'wrong': f'{type(e).__name__}: {str(e)[:200]}'}
    print(json.dumps(found), flush=True)


if __name__ == '__main__':
  serve()
