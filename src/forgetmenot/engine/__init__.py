"""The engine: tokens → trie → forward pass → loss, candidate scores, text; the training loop.

It knows nothing of tasks: it gets token sequences and gives back numbers.
"""
