//! Recovery points at rest: deduplicated, compressed, encrypted, verifiable.
