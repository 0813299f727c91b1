"""Models: load one, choose what learns, keep its weights; the bundled quickstart model."""
