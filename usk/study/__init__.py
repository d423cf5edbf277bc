"""Run a whole experiment from one TOML file: fit generators, make clips, train, compare, and write the results."""
