"""Cost, latency and energy."""
