"""ForenSynths, the ProGAN training set and the test sets of CNNDetection (arXiv:1912.11035).

Training: ``{class}/0_real|1_fake`` of 20 LSUN classes, below ``train`` and ``val``, whether or not a folder ``progan``
lies between. Test: ``{generator}/0_real|1_fake``, with class folders between for four of the generators.
"""

from __future__ import annotations

from rine_cache.layouts.named_folders import SPLITS, NamedFolders, both_classes, named, tree_layout

PROGAN_CLASSES = (
    *("airplane", "bird", "bicycle", "boat", "bottle", "bus", "car", "cat", "cow", "chair", "diningtable", "dog"),
    *("person", "pottedplant", "motorbike", "tvmonitor", "train", "sheep", "sofa", "horse"),
)
# Of StyleGAN, StyleGAN2 and CycleGAN.
OTHER_CLASSES = ("bedroom", "church", "apple", "orange", "zebra", "summer", "winter")
CLASSES = frozenset((*PROGAN_CLASSES, *OTHER_CLASSES))
GENERATORS = (
    *("progan", "stylegan", "stylegan2", "biggan", "cyclegan", "stargan", "gaugan"),
    *("crn", "imle", "seeingdark", "san", "deepfake", "whichfaceisreal"),
)


def lies_in_progan(above: list[str]) -> bool:
    """Tell of the folders above one named ``train`` whether it is ProGAN's class: whether they name ProGAN."""
    return "progan" in above


# The archives of the training images are named progan_train and progan_val.
TRAIN_SPLITS = SPLITS | {f"progan{split}": split for split in ("train", "val")}

TRAIN = tree_layout(
    "ForenSynths' training images: {class}/0_real|1_fake of the 20 ProGAN classes, below train and val",
    NamedFolders(
        named(dict.fromkeys(PROGAN_CLASSES, ())),
        ("train", "val"),
        is_class_train=lambda above: bool({"progan", *TRAIN_SPLITS} & set(above)),
        split_names=TRAIN_SPLITS,
        passed={"progan"},
    ),
    both_classes(PROGAN_CLASSES, ("train", "val")),
)

TEST = tree_layout(
    "ForenSynths' test images: {generator}[/{class}]/0_real|1_fake of 13 generators",
    NamedFolders(named(dict.fromkeys(GENERATORS, ())), ("test",), classes=CLASSES, is_class_train=lies_in_progan),
    both_classes(GENERATORS, ("test",)),
)
