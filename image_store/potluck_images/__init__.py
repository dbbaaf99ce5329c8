"""Content-addressed function images: chunks, manifests, stores, chunk sync and the image builder.

Nothing is imported here, so that `potluck_images.definition`, which the SDK loads in every notebook and sandbox, costs
no more than msgspec. By task:

- `definition`: how an image is described; `build.build()` turns it into an image id.
- `disk.DiskStore`, `memory.MemoryStore`: where chunks live; `store.ChunkStore` is the interface of both.
- `sync.ChunkSync`, `pull.ImagePull`: which chunks to ask from whom (no I/O inside).
- `keep.Shelf`: which images are here, are in use, may go; `oci`: images from and for the registries of others.
- `materialise.materialise()`: an image as a folder; `materialise.prune()` removes folders nobody uses.
"""
