"""sweepfw: hyperparameter sweeps, on one machine or many. In a trial: `sweepfw.report(loss=0.2, step=3)`."""

from sweepfw.inside.sweepfw import params, report

__version__ = "0.1.0"
__all__ = ["params", "report"]
