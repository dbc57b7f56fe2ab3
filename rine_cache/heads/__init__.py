"""Heads: the only part that is trained. Each reads cached features and gives fake logits."""
