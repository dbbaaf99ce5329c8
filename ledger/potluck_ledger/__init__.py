"""Keys, signed envelopes, receipts and the hash-chained journal: who gave what, provable offline."""
