"""Diffusion models as generators: loading, DDIM inversion and decoding, interpolation, and fitting."""
