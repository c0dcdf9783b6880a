"""All faults, by name."""

import cluster_faults_head
import cluster_faults_net
import cluster_faults_work
from cluster_kinds import KINDS

# Each fills the table when it is imported.
FILLED_BY = (cluster_faults_work, cluster_faults_head, cluster_faults_net)

__all__ = ["FILLED_BY", "KINDS"]
