import sys
from pathlib import Path

# The scripts are run from the checkout's root and are no part of the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
