//! Ractor shells around the pure core.
