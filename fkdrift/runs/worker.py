"""`python -m fkdrift.runs.worker FOLDER`: one of the processes that `fkdrift.runs.sharing.launch` starts."""

import faulthandler
import sys
from pathlib import Path

from fkdrift.runs.sharing import work

if __name__ == "__main__":
    faulthandler.enable()
    work(Path(sys.argv[1]))
