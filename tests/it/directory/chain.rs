//! Commits of known accounts that do not follow the one before.
