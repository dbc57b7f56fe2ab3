"""The cache: one HDF5 file per data set, encoder, tap and view. The only package that knows HDF5.

Datasets (K blocks, N images, V draws, D width, E embedding width, S slabs):

==================  ==============  ========  ===================================================
name                shape           dtype     holds
==================  ==============  ========  ===================================================
/features           (K, N, V, D)    float16   CLS tokens at the tap, block-major
/embedding          (N, V, E)       float16   the encoder's projected image feature
/status             (N,)            enum u1   pending, done, unreadable
/reason             (N,)            enum u1   why it is unreadable
/content_sha256     (N, 32)         uint8     digest of the file's bytes
/file_size          (N,)            uint64    how many they are
/width /height      (N,)            uint32    size of the decoded image, before the view
/format /mode       (N,)            S8        format by content, mode before conversion, as Pillow names them
/jpeg_quality       (N,)            uint8     nearest quality of libjpeg; 0 for what is no JPEG
/exif               (N,)            uint8     whether the file holds EXIF data
/perceptual_hash    (N,)            uint64    64-bit pHash of the decoded image
/checksum           (S, K+2, 32)    uint8     sha256 of each slab: K blocks, embedding, row tables
==================  ==============  ========  ===================================================

All are contiguous and allocated when the file is created. HDF5 therefore lays out the file once, and slabs
are then written at known offsets without touching its structure: a kill at any moment leaves a file that
opens. It also lets readers map the features, so that b of K blocks cost b/K of the bytes.

The first 512 bytes are the file's user block, ours to use: a state word and, once sealed, a digest of all
bytes that no slab checksum covers. So every byte of a sealed file is covered by one digest or the other.

Life of ``X.h5``: it is created as ``X.h5.part``, filled slab by slab, sealed, and renamed. What was done
survives; a slab counts as done when all its rows have a status and its checksums hold.

A cache may be several such files, shards, each of successive rows: see `shards`.

`slab` holds what is written at once, `hdf5` the file's structure, `writer` and `reader` the two ways to use it;
`joined` reads arrays of several files as one, `merge` writes them as one; `reuse` finds rows of sealed caches by
content.
"""

from rine_cache.cache.hdf5 import CacheIdentity, part_path
from rine_cache.cache.merge import merge_shards
from rine_cache.cache.reader import FeatureCache
from rine_cache.cache.reuse import ContentIndex, SealedRows, one_row
from rine_cache.cache.shards import is_joined, join_shards, remove_shards, shard_path, shard_rows
from rine_cache.cache.slab import CacheShape, RowRange, Slab, Status
from rine_cache.cache.writer import CacheWriter, open_writer

__all__ = [
    "CacheIdentity",
    "CacheShape",
    "CacheWriter",
    "ContentIndex",
    "FeatureCache",
    "RowRange",
    "SealedRows",
    "Slab",
    "Status",
    "is_joined",
    "join_shards",
    "merge_shards",
    "one_row",
    "open_writer",
    "part_path",
    "remove_shards",
    "shard_path",
    "shard_rows",
]
