"""What learns, one file per kind: LoRA adapters, all weights, a soft prompt; `models.adapt` has the table."""
