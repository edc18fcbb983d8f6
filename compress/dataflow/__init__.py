"""Where the weights of any JAX function meet their inputs."""

from compress.dataflow.arranged import Arranged
from compress.dataflow.inputs import mean, rows
from compress.dataflow.interpreter import Product
from compress.dataflow.observe import (
  EXTENT,
  Observed,
  Observer,
  apply,
  features,
  observed,
  transformed,
  transforming,
)
from compress.dataflow.sites import Site, sites

__all__ = [
  'EXTENT',
  'Arranged',
  'Observed',
  'Observer',
  'Product',
  'Site',
  'apply',
  'features',
  'mean',
  'observed',
  'rows',
  'sites',
  'transformed',
  'transforming',
]
