//! The one handle by which clients, links and peers reach the node: what lies behind it is another after a recovery.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Node;

/// The node that this process is now. Its store may fail and be opened again: then another node, made over it, takes this
/// one's place, and connections go on. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct CurrentNode(Arc<ArcSwap<Node>>);

impl CurrentNode {
    /// A handle to `node`.
    pub fn new(node: Arc<Node>) -> CurrentNode {
        CurrentNode(Arc::new(ArcSwap::new(node)))
    }

    /// The node. Whoever does several things that belong together (a ticket and the wait for it) asks once.
    pub fn get(&self) -> Arc<Node> {
        self.0.load_full()
    }

    /// The node, for a moment: cheaper than [`CurrentNode::get`].
    pub fn load(&self) -> Guard<Arc<Node>> {
        self.0.load()
    }

    /// Puts `node` in its place. What has begun goes on with the old one.
    pub fn replace(&self, node: Arc<Node>) {
        self.0.store(node);
    }
}
