//! Listings as other servers write them, and those that are refused.
