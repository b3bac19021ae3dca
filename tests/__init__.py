"""All processes of a run keep their compiled code: each of them would spend half a second on the app's."""

import os
import sys

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
