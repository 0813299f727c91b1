"""The files of a run: layout, predictions, results, atomic writes; knows no torch."""
