//! How much of the directory's file one domain can take, and what comes free again.
