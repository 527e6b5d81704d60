//! Joins rules and log: frozen event encodings, upcasters, envelopes.
