"""Run a frozen CLIP image encoder once, cache every block's CLS token, benchmark detectors from the cache."""
