"""`python -m forgetmenot`."""

from forgetmenot.cli import main

main()
