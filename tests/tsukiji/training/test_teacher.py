"""Teachers of every kind: trained before, trained jointly, or given."""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import recipe
from tests.runs import STEPS, TINY, images, plan_of, start
from tests.tsukiji.experiments.test_rows import tiny
from tsukiji.config import settings, validate
from tsukiji.data import batches
from tsukiji.data.datasets import Split
from tsukiji.deploy import artefact
from tsukiji.deploy.passes.lower import lower
from tsukiji.deploy.tsk import pack
from tsukiji.experiments import jobs, prepare
from tsukiji.models import net as net_lib
from tsukiji.training import probe
from tsukiji.training import step as step_lib
from tsukiji.training import teacher as teacher_lib

NAME = 'tests.tsukiji.training.test_teacher:own'


class Mean(nn.Module):
  """Three numbers of an image."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return what a dense layer makes of the mean."""
    return nn.Dense(3, name='head')(x.mean((1, 2)))


def own() -> teacher_lib.Teacher:
  """Return a Flax module of the user as a teacher of digits."""
  head = {'kernel': jnp.ones((1, 3)), 'bias': jnp.arange(3.0)}
  return teacher_lib.module(Mean(), {'params': {'head': head}})


def test_an_ensemble_is_the_mean() -> None:
  x = jnp.arange(6.0).reshape(2, 3)
  parts = [lambda x, k=k: k * x for k in (1.0, 2.0, 6.0)]
  np.testing.assert_allclose(teacher_lib.ensemble(parts)(x), 3 * x)
  assert teacher_lib.ensemble(parts[:1]) is parts[0]


def test_a_file_teaches_as_it_answers(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'tiny.tsk'
  artefact.save(path, pack.pack(*lower(TINY, start(TINY))))
  x = images(TINY, 4)
  teacher = teacher_lib.named(str(path), TINY.input_shape)
  np.testing.assert_allclose(teacher(x), artefact.load(path)(x), atol=1e-5)
  with pytest.raises(ValueError, match=r'inputs \(8, 8, 1\), got \(5, 5, 1\)'):
    teacher_lib.named(str(path), (8, 8, 1))
  with pytest.raises(ValueError, match='expected a file'):
    teacher_lib.named(str(tmp_path / 'none.tsk'), TINY.input_shape)


def test_code_teaches() -> None:
  x = jnp.ones((2, 8, 8, 1))
  said = teacher_lib.named(NAME, (8, 8, 1))(x)
  np.testing.assert_array_equal(said, [[1, 2, 3], [1, 2, 3]])
  for name in (
    'tests.tsukiji.training.test_teacher:nobody',
    'tests.none:own',
    NAME + ':own',
  ):
    with pytest.raises(ValueError, match=f'teacher {name}: expected a functi'):
      teacher_lib.named(name, (8, 8, 1))


def taught(**changes: Any) -> Any:
  """Return a config of a student and a teacher."""
  config = tiny(kd='distill.kd(4.0)', prune='prune.weights(0.5)')
  config.networks.big = settings.network('small', recipes=())
  config.recipes.kd.update({'teacher': ('big',), **changes})
  return config


@pytest.mark.parametrize(
  ('path', 'value', 'said'),
  [
    (
      'recipes.kd.teacher',
      ('bog',),
      "teacher: .* got 'bog'. Nearest: 'big'",
    ),
    (
      'recipes.kd.label_weight',
      -0.5,
      'kd.label_weight: expected at least 0, got -0.5',
    ),
    ('networks.big.dense', False, 'kd.teacher: expected a network with a row'),
    ('networks.big.seeds', (0,), 'big.seeds: expected 1, since it teaches kd'),
    ('networks.big.outputs', -1, 'big.outputs: expected at least 0, got -1'),
    ('helper', 'distil.kd()', "Nearest: 'distill.kd'"),
    ('finetune.loss', 'triplet', "one for classes, got 'neighbors'"),
  ],
)
def test_configs_that_cannot_teach(path: str, value: Any, said: str) -> None:
  config = taught()
  config.seeds = (0, 1)
  validate.check(config)
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=said):
    validate.check(config)


@pytest.mark.parametrize('teacher', [(), ('big', 'net'), ('big.tsk',)])
def test_one_network_is_trained_jointly(teacher: tuple[str, ...]) -> None:
  config = taught(train_teacher=True)
  validate.check(config)
  config.recipes.kd.teacher = teacher
  with pytest.raises(
    ValueError, match='kd.train_teacher: expected the name of one'
  ):
    validate.check(config)


def test_other_classes_are_errors_before_training(
  tmp_path: pathlib.Path,
) -> None:
  config = taught(teacher=(NAME,))
  config.recipes = {'kd': config.recipes.kd}
  config.networks = {'net': config.networks.net}
  said = r'recipes.kd on net: distill.kd: .*\(2, 10\), got \(2, 3\)'
  with pytest.raises(ValueError, match=said):
    prepare.prepare(config, tmp_path)


def test_the_helper_joins_methods_that_have_no_teacher() -> None:
  config = taught()
  assert teacher_lib.method_of(config, 'prune') == 'prune.weights(0.5)'
  config.helper = 'distill.mse()'
  both = 'prune.weights(0.5) >> distill.mse()'
  assert teacher_lib.method_of(config, 'prune') == both
  assert teacher_lib.method_of(config, 'kd') == 'distill.kd(4.0)'
  config.recipes.prune.use_helper = False
  assert teacher_lib.method_of(config, 'prune') == 'prune.weights(0.5)'


def test_who_waits_for_whom() -> None:
  config = taught()
  assert jobs.taught_by(config, 'kd') == ('big',)
  assert jobs.taught_by(config, 'prune') == ()
  config.recipes.kd.teacher = ('big', 'a.tsk', NAME)
  assert jobs.taught_by(config, 'kd') == ('big',)
  assert jobs.taught_by(taught(train_teacher=True), 'kd') == ()


def data() -> Split:
  x = np.asarray(images(TINY, 24))
  return Split(x, np.arange(24, dtype=np.int32) % 3)


@pytest.mark.slow
def test_what_is_known_is_what_the_teacher_says() -> None:
  """The same run, with a teacher that answers once and for all."""
  plan, split = plan_of(recipe.parse('distill.kd(2.0)')), data()
  chosen = settings.training(epochs=2, batch_size=8)
  reported = teacher_lib.precomputed(plan, chosen, split)
  assert reported is not None and plan.teacher is not None
  np.testing.assert_allclose(
    reported, plan.teacher(split.x), rtol=1e-5, atol=1e-5
  )
  ends = []
  for answers in (None, reported):
    state = step_lib.init_state(plan, start(TINY), 0)
    state, step = jax.tree.map(jnp.array, state), step_lib.make_step(plan)
    for i, batch in enumerate(batches.training(split, 8, 0, 0, (), answers)):
      if i == STEPS:
        break
      state = step(state, *batch)
    ends.append(state.params)
  for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_changes_is_not_known() -> None:
  chosen = settings.training(epochs=2, batch_size=8)
  plan, split = plan_of(recipe.parse('distill.kd(2.0)')), data()
  flipped = settings.training(epochs=2, augment=('flip',))
  assert teacher_lib.precomputed(plan, flipped, split) is None
  assert (
    teacher_lib.precomputed(plan_of(recipe.parse('')), chosen, split) is None
  )
  hinted = plan_of(recipe.parse('distill.fitnet("fc")'))
  assert teacher_lib.precomputed(hinted, chosen, split) is None
  joint = plan._replace(joint_teacher=plan_of(recipe.parse('')))
  assert teacher_lib.precomputed(joint, chosen, split) is None


def test_a_joint_teacher_learns_as_if_trained_by_itself() -> None:
  single, split = plan_of(recipe.parse('')), data()
  plan = plan_of(recipe.parse('quantize.int8() >> distill.kd(1.0)'))
  plan = plan._replace(teacher=None, joint_teacher=single)
  fresh = net_lib.init_variables(TINY, 3)
  states = [
    jax.tree.map(
      jnp.array,
      step_lib.init_state(p, fresh, 3, probe.probe(TINY, fresh, split)),
    )
    for p in (plan, single)
  ]
  before = states[0].params['fc']['kernel'].w
  for i, p in enumerate((plan, single)):
    step = step_lib.make_step(p)
    before = jax.tree.map(jnp.array, before)
    for x, y in ((split.x[:8], split.y[:8]), (split.x[8:16], split.y[8:16])):
      states[i] = step(states[i], x, y)
  student, teacher = states[0], states[0].teacher
  assert int(teacher.step) == 2
  for a, b in zip(
    jax.tree.leaves(teacher.params),
    jax.tree.leaves(states[1].params),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  assert np.any(student.params['fc']['kernel'].w != before)
