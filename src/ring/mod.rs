//! The ring.
pub mod partition;
pub mod slot;
