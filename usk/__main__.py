"""`python -m usk`."""

from usk.cli.app import main

main()
