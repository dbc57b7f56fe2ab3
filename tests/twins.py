"""Miniature twins of the published data sets, with their exact names of folders and files.

A twin is a list of paths, which a test may rename, drop or add to before `build` makes the files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rine_cache.layouts.forensynths import PROGAN_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

GENIMAGE = {  # as published, and as the archives unpack
    "midjourney": ("Midjourney", "Midjourney/imagenet_midjourney"),
    "sdv14": ("Stable Diffusion V1.4", "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4"),
    "sdv15": ("Stable Diffusion V1.5", "stable_diffusion_v_1_5/imagenet_ai_0424_sdv5"),
    "adm": ("ADM", "ADM/imagenet_ai_0508_adm"),
    "glide": ("GLIDE", "glide/imagenet_glide"),
    "wukong": ("Wukong", "wukong/imagenet_ai_0424_wukong"),
    "vqdm": ("VQDM", "VQDM/imagenet_ai_0419_vqdm"),
    "biggan": ("BigGAN", "BigGAN/imagenet_ai_0419_biggan"),
}
TEST_CLASSES = {
    "progan": PROGAN_CLASSES,
    "stylegan": ("bedroom", "car", "cat"),
    "stylegan2": ("car", "cat", "church", "horse"),
    "cyclegan": ("apple", "horse", "orange", "summer", "winter", "zebra"),
}
FORENSYNTHS = (
    *("progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan", "crn", "imle", "seeingdark"),
    *("san", "deepfake", "whichfaceisreal"),
)
UFD = {
    "guided": "imagenet",
    **dict.fromkeys(("ldm_200", "ldm_200_cfg", "ldm_100", "glide_100_27", "glide_50_27", "glide_100_10"), "laion"),
    "dalle": "laion",
}
SYNTHBUSTER = (
    *("dalle2", "dalle3", "firefly", "glide", "midjourney-v5", "stable-diffusion-1-3", "stable-diffusion-1-4"),
    *("stable-diffusion-2", "stable-diffusion-xl"),
)
AIGC = {  # the folders by the ids of their test sets
    **{name: name for name in ("progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan")},
    "whichfaceisreal": "whichfaceisreal",
    "adm": "ADM",
    "glide": "Glide",
    "midjourney": "Midjourney",
    "sdv14": "stable_diffusion_v_1_4",
    "sdv15": "stable_diffusion_v_1_5",
    "vqdm": "VQDM",
    "wukong": "wukong",
    "dalle2": "DALLE2",
}
LDM_FOLDERS = ("ffhq", "celebahq", "lsun_churches", "lsun_bedrooms", "text2img", "class_conditional")


def three_bytes(path: Path) -> None:
    """Make a file that is no image: a layout looks at no pixels."""
    path.write_bytes(b"abc")


def build(root: Path, paths: Iterable[str], write: Callable[[Path], None] = three_bytes) -> Path:
    """Make the files of a twin, each by `write`, and return its root."""
    root.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write(root / path)
    return root


def _both(folder: str, ending: str = "png", count: int = 2) -> list[str]:
    return [
        f"{folder}/{label}/{number:05d}.{ending}" for label in ("0_real", "1_fake") for number in range(1, count + 1)
    ]


def forensynths_train(classes: Iterable[str] = PROGAN_CLASSES, above: str = "") -> list[str]:
    return [path for split in ("train", "val") for name in classes for path in _both(f"{split}/{above}{name}")]


def _with_classes(generator: str, folder: str) -> list[str]:
    folders = [f"{folder}/{name}" for name in TEST_CLASSES.get(generator, ())] or [folder]
    return [path for inner in folders for path in _both(inner)]


def forensynths_test(generators: Iterable[str] = FORENSYNTHS) -> list[str]:
    return [path for generator in generators for path in _with_classes(generator, generator)]


def aigcdetectbenchmark(generators: Iterable[str] = tuple(AIGC)) -> list[str]:
    return [path for generator in generators for path in _with_classes(generator, AIGC[generator])]


def genimage(
    unpacked: bool = False, generators: Iterable[str] = tuple(GENIMAGE), splits: Iterable[str] = ("train", "val")
) -> list[str]:
    paths = []
    for generator in generators:
        for split in splits:
            folder = f"{GENIMAGE[generator][unpacked]}/{split}"
            ending = "PNG" if generator == "adm" else "png"
            paths += [f"{folder}/ai/{number:03d}_{generator}_00152.{ending}" for number in range(2)]
            paths += [f"{folder}/nature/ILSVRC2012_{split}_{number:08d}.JPEG" for number in range(2)]
    return paths


def chameleon() -> list[str]:
    return _both("test", "jpg")


def ufd_diffusion() -> list[str]:
    reals = [f"{source}/0_real/{number:04d}.jpg" for source in ("imagenet", "laion") for number in range(3)]
    return reals + [f"{generator}/1_fake/{number:04d}.png" for generator in UFD for number in range(2)]


def ufd_with_reals_everywhere() -> list[str]:
    """Return the paths of a copy that holds each source's reals in every generator's folder that they pair with."""
    fakes = [path for path in ufd_diffusion() if "1_fake" in path]
    return fakes + [f"{generator}/0_real/{UFD[generator]}{number:04d}.jpg" for generator in UFD for number in range(3)]


def synthbuster() -> list[str]:
    fakes = [f"synthbuster/{generator}/r{number:04d}.png" for generator in SYNTHBUSTER for number in range(2)]
    return [*fakes, *(f"RAISEpng/r{number:04d}.png" for number in range(2)), "synthbuster/prompts.txt", "get.py"]


def build_ldm_train(root: Path, write: Callable[[Path], None] = three_bytes) -> Path:
    """Make the latent-diffusion training set with COCO's and ProGAN's images, and lists of some of them.

    Of each split, two fakes a folder, two reals of COCO (of both its sets, one with its prefix) and two of LSUN.
    """
    fakes = [
        f"latent_diffusion_trainingset/{split}/{folder}/{number:04d}.png"
        for split in ("train", "valid")
        for folder in LDM_FOLDERS
        for number in range(2)
    ]
    coco = [f"coco/train2014/COCO_train2014_{number:012d}.jpg" for number in (1, 2, 3)]
    coco += [f"coco/val2014/COCO_val2014_{number:012d}.jpg" for number in (4, 5, 6)]
    build(root, [*fakes, *coco, *forensynths_train(("car", "train"), "progan/")], write)
    lists = {
        "train/real_coco.txt": "COCO_train2014_000000000001.jpg\r\n\r\n000000000002.jpg\r\n",
        "train/real_lsun.txt": "car_00001.png\ntrain_00001.png\n\n",
        "valid/real_coco.txt": "COCO_val2014_000000000004.jpg\n  \n000000000006.jpg",
        "valid/real_lsun.txt": "\ufeffcar_00002.png\r\ntrain_00002.png\r\n",
    }
    for name, text in lists.items():
        (root / "latent_diffusion_trainingset" / name).write_bytes(text.encode())
    return root
