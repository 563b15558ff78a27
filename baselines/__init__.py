"""What is compared: decoders p(x|z) and the models that carry them. Knows nothing of `bench`."""
