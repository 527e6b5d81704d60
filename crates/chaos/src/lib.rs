//! Seeded fault simulation with invariant checkers.
