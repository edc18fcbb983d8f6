"""Integer-only inference: a bit-exact reference and popcount kernels."""
