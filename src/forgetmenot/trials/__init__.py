"""Questions put to models: prompts, receipts, what they write, tuned against in-context, saved stages."""
