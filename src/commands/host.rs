//! What a node tells its commands.

/// The node that a command runs on, as far as commands may know and change it.
pub trait Host: Send + Sync {
    /// Wall time in milliseconds since the epoch.
    fn now_ms(&self) -> u64;
}
