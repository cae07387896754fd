//! The pace of background work is decided anew several times a second, for as long as the node runs.

use std::sync::Arc;

use tokio::time::sleep;

use super::Node;
use crate::replication::admission::INTERVAL;

impl Node {
    pub(super) async fn admission_loop(self: Arc<Self>) {
        while !self.is_stopping() {
            sleep(INTERVAL).await;
            self.coordinator.admission.step();
        }
    }
}
