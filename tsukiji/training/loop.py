"""One run from start to end: epochs, checkpoints, metrics, early stopping."""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import struct

from tsukiji import interrupt
from tsukiji.data import batches
from tsukiji.data.datasets import Data
from tsukiji.training import checkpoint, evaluate, event_files
from tsukiji.training import step as step_lib
from tsukiji.training.step import Plan, State

OnProgress = Callable[
  [str, int], None
]  # run name, batches done since the last call
OnEpoch = Callable[[int, float], None]  # epoch, accuracy on the validation set


@struct.dataclass
class Progress:
  """The contents of a checkpoint.

  Attributes:
    state: Where training is.
    best: Parameters and batch statistics of the best epoch so far; empty
      unless early stopping is on.
    best_accuracy: Validation accuracy of `best`.
    waited: Epochs since `best`.
    seconds: Time so far, over all sessions.
  """

  state: State
  best: Any
  best_accuracy: Any
  waited: Any
  seconds: Any


class Run(NamedTuple):
  """A run: its name, plan, start and data.

  Attributes:
    name: Unique in the workdir, as 'tsukijinet2021-0-dense'.
    plan: The plan, which is compiled.
    start: The state before the first step.
    data: Training and validation examples.
    settings: `batch_size`, `augment`, `patience` of the config.
    seed: Seed of order and augmentation.
    teacher_outputs: Precomputed teacher outputs for the training examples.
    epochs: Number of epochs after which to pause, as if done; 0 for all.
  """

  name: str
  plan: Plan
  start: State
  data: Data
  settings: ml_collections.ConfigDict
  seed: int
  teacher_outputs: np.ndarray | None = None
  epochs: int = 0


def ignore(*what: object) -> None:
  """Ignore progress."""
  del what


def fit(
  run: Run,
  workdir: pathlib.Path,
  on_progress: OnProgress = ignore,
  on_epoch: OnEpoch = ignore,
) -> tuple[dict[str, Any], float]:
  """Train to the end, resuming from the newest checkpoint if there is one.

  Args:
    run: What to train.
    workdir: Gets `checkpoints/NAME` after every epoch and a line in
      `metrics.jsonl` for every epoch and split, and an entry in `tensorboard/`
      if tensorboardX is installed.
    on_progress: Called after every batch, for progress bars.
    on_epoch: Called after every epoch.

  Returns:
    The variables (those of the best epoch under early stopping) and the
    seconds it took.

  Raises:
    FloatingPointError: If a loss is not finite, in training or on the
      validation set; the last good checkpoint stays and the message names the
      step.
    interrupt.Stopped: On SIGINT or SIGTERM, after a checkpoint is written.
  """
  folder = workdir / 'checkpoints' / run.name
  fresh = _begin(run)
  progress = checkpoint.restore(folder, fresh) or fresh
  count = batches.steps_per_epoch(
    len(run.data.train.y), run.settings.batch_size
  )
  on_progress(run.name, int(progress.state.step))
  step = step_lib.make_step(run.plan)
  last = min(run.plan.steps, run.epochs * count or run.plan.steps)
  while not _done(run, progress, last):
    begun = time.perf_counter()
    state = _epoch(run, step, progress.state, count, on_progress)
    with interrupt.saving():
      seconds = progress.seconds + np.float32(time.perf_counter() - begun)
      complete = (
        int(state.step) % count == 0 or int(state.step) == run.plan.steps
      )
      if int(state.bad_step) != step_lib.NEVER:
        raise _diverged(run, int(state.bad_step))
      progress = dataclasses.replace(progress, state=state, seconds=seconds)
      if complete:
        progress, accuracy = _close_epoch(run, progress, count, workdir)
        on_epoch(int(state.step) // count, accuracy)
      checkpoint.save(folder, int(state.step), progress)
    interrupt.stop_if_requested()
  chosen = progress.best or progress.state.variables
  return chosen, float(progress.seconds)


def _begin(run: Run) -> Progress:
  best = run.start.variables if run.settings.patience else {}
  worst = np.float32(-np.inf)  # scores such as R2 have no lower bound
  return Progress(run.start, best, worst, np.int32(0), np.float32(0))


def _done(run: Run, progress: Progress, last: int) -> bool:
  exhausted = 0 < run.settings.patience <= int(progress.waited)
  return exhausted or int(progress.state.step) >= last


def _epoch(
  run: Run,
  step: Callable[..., State],
  state: State,
  count: int,
  on_progress: OnProgress,
) -> State:
  """Step to the end of the epoch, or until a signal to stop."""
  sharding = batches.over_devices()
  # A copy, since the step donates its argument.
  state = jax.device_put(state, step_lib.replicated(), may_alias=False)
  first = int(state.step)
  left = min(count - first % count, run.plan.steps - first)
  feed = batches.training(
    run.data.train,
    run.settings.batch_size,
    run.seed,
    first,
    tuple(run.settings.augment),
    run.teacher_outputs,
  )
  for _, batch in zip(range(left), feed, strict=False):
    state = step(state, *(batches.place(x, sharding) for x in batch))
    on_progress(run.name, 1)
    if interrupt.requested() is not None:
      break
  return state


def _diverged(run: Run, step: int) -> FloatingPointError:
  return FloatingPointError(
    f'{run.name}: expected a finite loss, got NaN or infinity at step {step}. '
    f'The last good checkpoint is in checkpoints/{run.name}; lower the '
    'learning rate or set train.clip.'
  )


def _close_epoch(
  run: Run, progress: Progress, count: int, workdir: pathlib.Path
) -> tuple[Progress, float]:
  """Evaluate, write metrics, and keep the best epoch under early stopping."""
  state = progress.state
  steps = (int(state.step) - 1) % count + 1
  loss, accuracy = (np.asarray(state.sums) / steps).tolist()
  score = evaluate.evaluate(
    run.plan.spec,
    state.variables,
    run.data.validation,
    loss=run.plan.loss,
  )
  if not np.isfinite(score.loss):
    raise _diverged(run, int(state.step))
  where = {
    'run': run.name,
    'step': int(state.step),
    'epoch': -(-int(state.step) // count),
  }
  _log(workdir, where, 'train', loss, accuracy)
  _log(workdir, where, 'validation', *score)
  state = dataclasses.replace(state, sums=jnp.zeros(2))
  progress = dataclasses.replace(progress, state=state)
  if run.settings.patience and score.accuracy > progress.best_accuracy:
    progress = dataclasses.replace(
      progress,
      best=jax.tree.map(np.asarray, state.variables),
      best_accuracy=np.float32(score.accuracy),
      waited=np.int32(0),
    )
  elif run.settings.patience:
    waited = np.int32(progress.waited + 1)
    progress = dataclasses.replace(progress, waited=waited)
  return progress, score.accuracy


def _log(
  workdir: pathlib.Path,
  where: dict[str, Any],
  split: str,
  loss: float,
  accuracy: float,
) -> None:
  """Append one line; short appends of several processes do not mix."""
  line = {'time': time.time(), **where, 'split': split}
  text = json.dumps({**line, 'loss': loss, 'accuracy': accuracy}) + '\n'
  flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
  handle = os.open(workdir / 'metrics.jsonl', flags, 0o644)
  try:
    os.write(handle, text.encode())
  finally:
    os.close(handle)
  folder = workdir / 'tensorboard' / where['run'] / split
  event_files.write(folder, where['step'], loss, accuracy)


def curves(workdir: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  """Return the metrics of each run, in order, each epoch once.

  A run that was killed between its metrics and its checkpoint repeats the
  epoch; the later line stands.
  """
  path = workdir / 'metrics.jsonl'
  found: dict[str, dict[tuple[int, str], dict[str, Any]]] = {}
  lines = path.read_bytes().splitlines() if path.exists() else ()
  for line in lines:
    try:
      entry = json.loads(line)
      run = found.setdefault(entry['run'], {})
      run[entry['step'], entry['split']] = entry
    except (ValueError, KeyError, TypeError):
      continue  # a line cut short by a crash
  return {
    name: [run[k] for k in sorted(run, key=lambda k: (k[0], k[1]))]
    for name, run in found.items()
  }
