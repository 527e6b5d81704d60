//! A durable, ordered log of streams of bytes.
