"""Which kernel computes a product."""

from tsukiji.deploy.c import dense_product, plain_product
from tsukiji.deploy.c.steps import Step
from tsukiji.deploy.c.tables import Tables


def product(step: Step, tables: Tables) -> list[str]:
  """Write a product by the fastest kernel that can compute it."""
  if dense_product.fits(step):
    return dense_product.product(step, tables)
  return plain_product.product(step, tables)
