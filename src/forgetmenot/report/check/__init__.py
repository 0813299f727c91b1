"""What a check found: for a terminal, a pull request, a test report, and as one page."""
