//! Events that were lost upstream: noticed, said, and mended.
