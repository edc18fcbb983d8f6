"""Networks as ONNX models with trained scales."""
