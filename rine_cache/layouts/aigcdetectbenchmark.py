"""AIGCDetectBenchmark (arXiv:2311.12397): ``{generator}[/{class}]/0_real|1_fake`` of 16 generators, and SDXL's."""

from __future__ import annotations

from rine_cache.layouts.forensynths import CLASSES, lies_in_progan
from rine_cache.layouts.genimage import STABLE_DIFFUSION
from rine_cache.layouts.named_folders import NamedFolders, both_classes, named, tree_layout

GENERATORS = (
    *("progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan", "whichfaceisreal"),
    *("adm", "glide", "midjourney", "sdv14", "sdv15", "vqdm", "wukong", "dalle2"),
)
_FOLDERS: dict[str, tuple[str, ...]] = {
    **{generator: STABLE_DIFFUSION.get(generator, ()) for generator in GENERATORS},
    "sdxl": ("sd_xl", "stable_diffusion_xl"),  # added after publication: not missed where it is not there
}

LAYOUT = tree_layout(
    "AIGCDetectBenchmark: {generator}[/{class}]/0_real|1_fake of 16 generators",
    NamedFolders(
        named(_FOLDERS),
        ("test",),
        classes=CLASSES,
        is_class_train=lies_in_progan,
    ),
    both_classes(GENERATORS, ("test",)),
)
