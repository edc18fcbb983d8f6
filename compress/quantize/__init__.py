"""Quantization of weights, layer inputs and gradients."""

from compress.quantize.adaround import adaround
from compress.quantize.batch_norm import fold_batch_norm
from compress.quantize.bias_correction import bias_correction
from compress.quantize.delay import delay
from compress.quantize.dorefa import dorefa
from compress.quantize.equalization import cross_layer_equalization
from compress.quantize.gptq import gptq
from compress.quantize.gradients import gradients
from compress.quantize.half import half
from compress.quantize.lsq import lsq
from compress.quantize.mixed_precision import auto
from compress.quantize.pact import pact
from compress.quantize.uniform import int8, ternary, uniform

__all__ = [
  'adaround',
  'auto',
  'bias_correction',
  'cross_layer_equalization',
  'delay',
  'dorefa',
  'fold_batch_norm',
  'gptq',
  'gradients',
  'half',
  'int8',
  'lsq',
  'pact',
  'ternary',
  'uniform',
]
