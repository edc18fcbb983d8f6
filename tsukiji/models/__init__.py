"""Networks: specs, the Flax module that applies them, the zoo, surgery."""
