"""What is compared: decoders p(x|z) and the models in front of them. Does not import `bench`."""
