//! A simulated compute host: pure machine and its shells.
