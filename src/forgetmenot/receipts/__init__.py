"""Receipts (SuperContext, Yang et al. 2024): what a small supervised model says, shown to the large one."""
