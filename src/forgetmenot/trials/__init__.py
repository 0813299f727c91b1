"""Asking without training: prompts, receipts, and saved stages scored or probed anew."""
