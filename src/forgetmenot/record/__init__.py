"""What lies on disk: layout, predictions, results, files written whole; knows no torch."""
