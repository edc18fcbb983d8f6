"""A row of results: a trained network, packed and measured."""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from compress import tree
from compress.tree import Params
from tsukiji.config import budget
from tsukiji.data.datasets import Data
from tsukiji.deploy import artefact, engines
from tsukiji.deploy.passes.lower import Variables, lower
from tsukiji.deploy.passes.round_floats import rounded
from tsukiji.deploy.tsk import pack
from tsukiji.experiments import jobs
from tsukiji.experiments.store import Row
from tsukiji.graph.multiplies import layer_of
from tsukiji.graph.nodes import Graph
from tsukiji.measure import cost, energy, on_device
from tsukiji.models import drop_layers
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models.spec import Spec
from tsukiji.training import evaluate, loop, metrics, teacher
from tsukiji.training.linear_probe import Reading


class Trained(NamedTuple):
  """A network at the end of its training.

  Attributes:
    spec: The network, smaller than the dense one if channels were removed.
    variables: Arrays or nodes, not lowered yet.
    seconds: Time of training.
    readings: What linear classifiers read behind each unit of the network it
      started from, where units were removed by that.
    float_bits: Significant bits of the floats in its file; 0 for all.
  """

  spec: Spec
  variables: Variables
  seconds: float
  readings: tuple[Reading, ...] = ()
  float_bits: int = 0


def finish(
  experiment: jobs.Experiment,
  network: str,
  seed: int,
  name: str,
  done: Trained,
) -> Row:
  """Pack a network and measure the file.

  Args:
    experiment: The experiment; the artefact goes to its folder.
    network: Name in the config.
    seed: Of the run.
    name: Of the recipe.
    done: What training gave.

  Returns:
    The row, without latency.
  """
  title = jobs.cell_name(network, seed, name)
  method = _method(experiment.config, name)
  blob = packed(done, meta_of(experiment.data, title, method))
  path = experiment.folder / 'artefacts' / f'{title}.tsk'
  artefact.save(path, blob)
  shipped = artefact.load(path)
  params = shipped.variables['params']
  joules = energy.model(shipped.network, params, len(blob))
  dense = experiment.specs[network]
  return {
    'name': title,
    'dataset': experiment.data.name,
    'network': network,
    'seed': seed,
    **_labels(experiment.config, network, name),
    **_scores(experiment, shipped),
    'params_trained': cost.params(net_lib.variable_shapes(dense)['params']),
    **cost.summary(shipped.network, params),
    'mac_fraction': cost.macs(shipped.network, params) / cost.macs(dense),
    'layers': _layers(
      shipped.network, params, _remarks(done.variables['params'])
    ),
    'units': len(drop_layers.units(done.spec)),
    'width': _width(dense),
    'epochs': jobs.steps_of(experiment, network, name)[0].epochs,
    'bytes': len(blob),
    'energy_uj': joules.total,
    'energy_source': joules.source,
    'energy_parts_uj': {
      'compute': joules.compute,
      'weights': joules.weights,
      'activations': joules.activations,
    },
    'val_course': _course(experiment, title),
    'train_seconds': round(done.seconds, 1),
    'artefact': f'artefacts/{title}.tsk',
    **_on_device(experiment.config, shipped),
    **_read(done.readings),
  }


def with_rates(row: Row, dense: Row) -> Row:
  """Return a row with its compression rate."""
  return row | {
    'reference': dense['network'],
    'compression_rate': dense['bytes'] / row['bytes'],
  }


def packed(done: Trained, meta: dict[str, Any]) -> bytes:
  """Return a trained network as a packed file.

  That of a dense network, which rates are against, has its floats as they are.
  """
  network, small = lower(done.spec, done.variables)
  small = rounded(small, done.float_bits) if done.float_bits else small
  meta = {**meta, 'network': done.spec.name}
  return pack.pack(network, small, meta, coded_floats=bool(meta['recipe']))


def meta_of(data: Data, title: str, method: str = '') -> dict[str, Any]:
  """Return the metadata of a packed file."""
  classes = list(data.classes)
  return {
    'name': title,
    'dataset': data.name,
    'classes': classes,
    'recipe': method,
    **({'input_scaling': data.scaling._asdict()} if data.scaling else {}),
  }


def _course(experiment: jobs.Experiment, title: str) -> list[float]:
  """Return the validation accuracy after each epoch of training."""
  return [
    round(entry['accuracy'], 4)
    for entry in loop.curves(experiment.folder).get(title, ())
    if entry['split'] == 'validation'
  ]


def _scores(
  experiment: jobs.Experiment, shipped: artefact.Artefact
) -> dict[str, float]:
  """Return the scores of the file on the validation and the test set."""
  loss = experiment.config.train.loss
  key = metrics.goal_of(loss).key
  splits = {f'val_{key}': experiment.data.validation, key: experiment.data.test}
  return {
    name: evaluate.scored(shipped.run, split, loss).accuracy
    for name, split in splits.items()
  }


def _on_device(config: ConfigDict, shipped: artefact.Artefact) -> Row:
  """Return what the C file takes, where the budget says what it may."""
  if not budget.is_of_device(config):
    return {}
  try:
    return {'device': on_device.record(engines.written(shipped))}
  except ValueError:  # an operator without a kernel: the export says which
    return {}


def _read(found: tuple[Reading, ...]) -> dict[str, Any]:
  return {'readings': [reading._asdict() for reading in found]} if found else {}


def _width(spec: Spec) -> int:
  """Return the filters of the widest convolution."""
  return max(
    (s.layer.features for s in sp.walk(spec) if isinstance(s.layer, sp.Conv)),
    default=0,
  )


def _layers(
  network: Graph, params: Params, remarks: dict[str, str]
) -> list[dict[str, Any]]:
  """Return the size of each layer, for the table of removed layers."""
  return [
    {
      'name': item.name,
      'outputs': item.after[-1],
      'weights': item.weights,
      'nonzero': item.nonzero,
      'macs': item.macs,
      **({'remark': remarks[item.name]} if item.name in remarks else {}),
    }
    for item in cost.layers(network, params)
  ]


def _remarks(params: Params) -> dict[str, str]:
  """Return the remarks of the nodes of each layer, by layer."""
  words: dict[str, str] = {}

  def look(path: str, node: tree.Compressed) -> tree.Compressed:
    if node.describe():
      words[layer_of(path)] = node.describe()
    return node

  tree.map_nodes(tree.Compressed, look, params)
  return words


def _method(config: ConfigDict, name: str) -> str:
  return '' if name == jobs.DENSE else teacher.method_of(config, name)


def _labels(config: ConfigDict, network: str, name: str) -> dict[str, Any]:
  """Return the labels of a row: its role, family and mode."""
  role = config.networks[network].role
  control = role.startswith('control')
  if name == jobs.DENSE:
    return {'recipe': jobs.DENSE, 'role': role, 'mode': 'scratch'}
  item = config.recipes[name]
  return {
    'recipe': name,
    'role': role if control else item.role,
    'method': _method(config, name),
    **({'teacher': [*item.teacher]} if item.teacher else {}),
    'family': item.family,
    'mode': item.mode,
  }
