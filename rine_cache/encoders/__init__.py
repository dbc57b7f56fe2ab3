"""Frozen image towers of open_clip: the CLS token of every block, at both taps, and the embedding."""

from rine_cache.encoders.encoder import Encoded, Encoder, Running
from rine_cache.encoders.load import load_encoder, resolve_precision, token_shape

__all__ = ["Encoded", "Encoder", "Running", "load_encoder", "resolve_precision", "token_shape"]
