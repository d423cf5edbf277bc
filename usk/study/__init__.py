"""Whole experiments from one TOML file: fit, synthesize, train, compare, and write down what came out."""
