"""Clips and their sources: opening, decoding and caching them, splits, leaks, mixes, and the demo corpus."""
