"""Adapters, one file per kind: LoRA, all weights, a soft prompt; `models.adapt` has the table."""
