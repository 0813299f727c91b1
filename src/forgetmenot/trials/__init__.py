"""Evaluation without training: prompts, receipts, and saved stages scored or probed again."""
