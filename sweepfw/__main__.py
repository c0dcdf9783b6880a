"""`python -m sweepfw` is `sweepfw`."""

from sweepfw.cli.main import main

main()
