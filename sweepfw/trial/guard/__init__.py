"""The guardian and its keepers: they run trials, and see to it that what dies is dead.

The client (`client.py`, the only file that the rest of sweepfw imports, beside `follow.py` and
`workcopy.py`) starts the guardian, the guardian forks one keeper per slot, a keeper runs one trial at a
time. All files here import the standard library only, and little of that: it is loaded in every run.
"""
