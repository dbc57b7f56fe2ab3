"""`python -m rine_cache` is `rine-cache`."""

from rine_cache.cli.main import main

main()
