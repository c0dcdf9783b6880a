"""Print the parameters as the command gets them, and where it runs."""

import os
import platform
import sys

print("parameters:", *sys.argv[1:])
print("host:", platform.node(), "python:", platform.python_version())
print("trial:", os.environ.get("SWEEPFW_SWEEP", "-"), os.environ.get("SWEEPFW_TRIAL", "-"))
