"""The command line: options to a configuration, one call, one table."""
