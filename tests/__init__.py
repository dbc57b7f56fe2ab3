"""Tests compute as the command line does, whatever else runs on their cores."""

from rine_cache.threads import wait_without_spinning

wait_without_spinning()  # before any test loads torch
