"""Clips and where they come from: rows, sources, decoding, splits, mixes and the demo corpus."""
