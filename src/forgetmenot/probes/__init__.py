"""What else changed: one file for each probe."""
