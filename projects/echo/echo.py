"""Prints the parameters that it was given, and the host that it runs on."""

import os
import sys

print("host:", os.uname().nodename)
for argument in sys.argv[1:]:
    print(argument)
