"""The laboratory: networks, data, training, measuring, deploying."""
