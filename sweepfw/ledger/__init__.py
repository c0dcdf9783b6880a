"""The ledger: the truth about sweeps, trials, attempts and metrics, behind one interface with two doors."""
