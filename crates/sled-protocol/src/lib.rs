//! Wire types and client trait between control plane and sleds.
