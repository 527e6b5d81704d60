//! The rules of an instance's life: decide, evolve, effects; pure.
