//! The HTTP interfaces.
