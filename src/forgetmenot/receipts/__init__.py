"""Receipts (SuperContext, Yang et al. 2024): a small supervised model's prediction in a prompt."""
