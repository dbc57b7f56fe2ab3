"""Chameleon (arXiv:2406.19435): ``Chameleon/test/0_real|1_fake``, one subset, no training split."""

from __future__ import annotations

from rine_cache.layouts.named_folders import NamedFolders, both_classes, named, tree_layout

LAYOUT = tree_layout(
    "Chameleon: test/0_real|1_fake",
    NamedFolders(named({"chameleon": ("chameleon_test",)}), ("test",), sole="chameleon"),
    both_classes(("chameleon",), ("test",)),
)
