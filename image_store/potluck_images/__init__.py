"""Content-addressed function images: chunks, manifests, stores, chunk sync and the image builder."""
