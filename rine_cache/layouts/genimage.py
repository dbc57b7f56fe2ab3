"""GenImage (arXiv:2306.08571): ``{generator}/{train,val}/{ai,nature}`` of 8 generators.

Generators' folders have the published names (``Stable Diffusion V1.4``), those that the archives unpack into
(``stable_diffusion_v_1_4/imagenet_ai_0419_sdv4``), or only the inner ones of these.
"""

from __future__ import annotations

from rine_cache.layouts.named_folders import NamedFolders, both_classes, named, tree_layout

STABLE_DIFFUSION = {
    f"sdv1{minor}": (f"stable_diffusion_v_1_{minor}", f"stable_diffusion_1_{minor}", f"sd_1_{minor}")
    for minor in (4, 5)
}
_UNPACKED = {
    "midjourney": ("imagenet_midjourney",),
    "sdv14": ("imagenet_ai_0419_sdv4", *STABLE_DIFFUSION["sdv14"]),
    "sdv15": ("imagenet_ai_0424_sdv5", *STABLE_DIFFUSION["sdv15"]),
    "adm": ("imagenet_ai_0508_adm",),
    "glide": ("imagenet_glide",),
    "wukong": ("imagenet_ai_0424_wukong",),
    "vqdm": ("imagenet_ai_0419_vqdm",),
    "biggan": ("imagenet_ai_0419_biggan",),
}

LAYOUT = tree_layout(
    "GenImage: {generator}/{train,val}/{ai,nature} of 8 generators",
    NamedFolders(named(_UNPACKED), ("train", "val")),
    both_classes(_UNPACKED, ("train", "val")),
)
