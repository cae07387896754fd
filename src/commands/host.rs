//! What a node tells its commands.

use crate::resp::Reply;

/// The node that a command runs on, as far as commands may know and change it.
pub trait Host: Send + Sync {
    /// Wall time in milliseconds since the epoch.
    fn now_ms(&self) -> u64;

    /// Every member of the cluster as this node sees it, for DYNAMO NODES: an array of maps, one per member.
    fn nodes(&self) -> Reply;
}
