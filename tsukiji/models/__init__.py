"""The zoo: networks as values, one module that applies them, surgery."""
