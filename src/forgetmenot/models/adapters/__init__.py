"""Adapters, one file per kind: LoRA, all weights, a soft prompt, a bridge; `models.adapt` has the table."""
