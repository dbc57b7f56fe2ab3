"""What an extraction is to make: for each target its file, whole or a shard, with its rows, shape and identity.

Nothing is written here, and no image read; `extract` carries the plans out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rine_cache.cache import CacheIdentity, CacheShape, FeatureCache, RowRange, shard_path, shard_rows
from rine_cache.errors import CacheCorruptError, CacheMismatchError, CacheUnsealedError, ConfigError
from rine_cache.images import decoder_version
from rine_cache.specs.encoding import CACHE_SCHEMA_VERSION
from rine_cache.views import libraries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rine_cache.manifest import Manifest
    from rine_cache.slab_filler import AnyEncoder
    from rine_cache.specs.encoding import Tap, ViewSpec

LOG = logging.getLogger(__name__)

# A slab is what an interruption can cost, and what is flushed to disk at once; in batches of the encoder.
BATCHES_PER_SLAB = 4


@dataclass(frozen=True)
class Target:
    """A cache to be made.

    Attributes
    ----------
    encoder
        The frozen image tower. Targets of the same one share its passes.
    tap
        Which of its taps to keep.
    view
        How an image becomes crops; its size must be the encoder's.
    output
        Path of the cache.
    reuse
        Caches whose rows are copied for images of the same content, where they are sealed and of the same encoding
        key; others are passed over. `output` itself may be one of them: a data set that grew.
    """

    encoder: AnyEncoder
    tap: Tap
    view: ViewSpec
    output: Path
    reuse: Sequence[Path] = ()


@dataclass(frozen=True)
class Plan:
    """A target, and what its file, whole or a shard, will be.

    Attributes
    ----------
    target
        The cache to be made.
    path
        Where the file will be.
    rows
        Which rows of the manifest it will hold.
    shape, identity
        What it will be made with.
    """

    target: Target
    path: Path
    rows: slice
    shape: CacheShape
    identity: CacheIdentity

    def is_done(self) -> bool:
        """Say whether a sealed cache of this very key and these rows is there, or none is to be made.

        Another one is replaced at the end.
        """
        if not self.shape.images:
            LOG.info("%s has no row: there are fewer slabs than shards", self.path)
            return True
        if not self.path.exists():
            return False
        try:
            found = FeatureCache(self.path).identity
        # Whatever else is wrong is raised: that file is not ours to replace.
        except (CacheCorruptError, CacheMismatchError, CacheUnsealedError) as error:
            LOG.warning("%s; it is extracted again", error)
            return False
        wanted = self.identity
        if (found.key, found.manifest_digest, found.rows) == (wanted.key, wanted.manifest_digest, wanted.rows):
            LOG.info("%s is sealed and up to date: nothing to do", self.path)
            return True
        LOG.info("%s was made from another key or manifest; it is replaced when the new one is sealed", self.path)
        return False


def plan_extraction(manifest: Manifest, targets: Sequence[Target], shard: tuple[int, int] | None) -> list[Plan]:
    """Plan the files of all targets, in their order; `shard` as for `extract`.

    Raises
    ------
    ConfigError
        If two targets have one output.
    CacheMismatchError
        If a view's crops are not of the encoder's size.
    """
    outputs = [target.output.resolve() for target in targets]
    if twice := next((path for path in outputs if outputs.count(path) > 1), None):
        raise ConfigError(f"two caches would be written to {twice}; give each an output of its own")
    return [_plan(manifest, target, shard) for target in targets]


def _plan(manifest: Manifest, target: Target, shard: tuple[int, int] | None) -> Plan:
    encoder, view = target.encoder, target.view
    if view.size != encoder.image_size:
        raise CacheMismatchError(
            f"the view's crops have {view.size} pixels a side, {encoder.identity['architecture']} takes "
            f"{encoder.image_size}; use a view of that size"
        )
    slab_rows = max(1, BATCHES_PER_SLAB * encoder.batch_size // view.draws)
    rows = slice(0, len(manifest)) if shard is None else shard_rows(len(manifest), slab_rows, *shard)
    kind = encoder.device.partition(":")[0]  # cuda, whichever of them: another may go on with the file
    return Plan(
        target,
        target.output if shard is None else shard_path(target.output, *shard),
        rows,
        CacheShape(
            blocks=encoder.block_count,
            images=rows.stop - rows.start,
            draws=view.draws,
            width=encoder.width,
            embedding_width=encoder.embedding_width,
            slab_rows=slab_rows,
        ),
        CacheIdentity(
            encoding_key(encoder, target.tap, view),
            manifest.listing_digest,
            _library_versions(),
            kind,
            RowRange(rows.start, len(manifest)),
        ),
    )


def by_pass(plans: Sequence[Plan]) -> list[list[Plan]]:
    """Put the taps of one encoder and view together: one forward pass gives them all."""
    passes: list[list[Plan]] = []
    for plan in plans:
        for others in passes:
            same_pass = plan.target.encoder is others[0].target.encoder and plan.target.view == others[0].target.view
            if same_pass and all(plan.target.tap != other.target.tap for other in others):
                others.append(plan)
                break
        else:
            passes.append([plan])
    return passes


def encoding_key(encoder: AnyEncoder, tap: Tap, view: ViewSpec) -> dict[str, Any]:
    """Return all that changes the numbers of one image (and nothing that does not).

    Workers, devices and shards are not in it; the manifest's digest guards which images stand in which rows.
    """
    return {
        "schema_version": CACHE_SCHEMA_VERSION,
        "encoder": encoder.identity,
        "tap": tap,
        "view": view.model_dump(mode="json"),
        "decoder": decoder_version(),
        "view_libraries": libraries(view),
        "compute_dtype": encoder.compute_dtype,
        "compiled": encoder.compiled,
        "batch_size": encoder.batch_size,
    }


def _library_versions() -> dict[str, str]:
    names = ("rine-cache", "torch", "open_clip_torch", "h5py", "numpy", "pillow", "ImageHash")
    return {name: metadata.version(name) for name in names}
