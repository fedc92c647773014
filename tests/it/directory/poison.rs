//! Messages that cannot be read.
