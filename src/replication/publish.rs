//! Messages to subscribers: to those of this node at once, to every other node as one peer message each.
//!
//! A link carries requests in their order and a node takes them in as they arrive, so what one publisher says arrives in
//! its order, and once. Nothing is sent again and nothing is kept: who is not reached has missed it, as in Redis. It goes
//! to every member, also one that is taken for dead: whoever still has a link hears it.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Coordinator;
use crate::commands::pubsub::{Listening, News};
use crate::metrics;
use crate::peer::{Request, Response};
use crate::resp::Reply;

/// The subscribers of this node.
pub trait Audience: Send + Sync {
    /// Lets those who listen have a message; answers how many they are.
    fn hear(&self, news: &News) -> usize;

    /// Answers what is asked about them.
    fn listening(&self, asked: &Listening) -> Reply;
}

impl Coordinator {
    /// Says who listens at this node. Once: a node serves one server for as long as it is there.
    pub fn set_audience(&self, audience: Arc<dyn Audience>) {
        let _ = self.audience.set(audience);
    }

    /// Sends a message to all nodes' subscribers; answers how many of them this node has. Waits for nobody.
    pub fn publish(&self, news: News) -> usize {
        metrics::PUBLISHED.increment();
        let here = self.hear(&news);
        let view = self.view.load();
        if !view.is_alone() {
            let request = Request::Publish(news);
            let others = view.nodes.keys().filter(|node| **node != view.me);
            others.for_each(|node| drop(self.env.call(*node, &request)));
        }
        here
    }

    /// Lets this node's subscribers have a message.
    pub fn hear(&self, news: &News) -> usize {
        self.audience.get().map_or(0, |audience| audience.hear(news))
    }

    /// What this node answers about its subscribers.
    pub fn listening_here(&self, asked: &Listening) -> Reply {
        self.audience.get().map_or(Reply::Array(Vec::new()), |audience| audience.listening(asked))
    }

    /// What all nodes that are live answer together. One that does not answer in time is left out: it is about who could
    /// hear something now.
    pub(super) async fn listening(&self, asked: &Listening) -> Reply {
        let here = self.listening_here(asked);
        let request = Request::Listening(asked.clone());
        let view = self.view.load_full();
        let others = view.nodes.keys().filter(|node| **node != view.me && view.is_live(**node));
        let calls = others.map(|node| timeout(self.patience, self.env.call(*node, &request)));
        let answers = join_all(calls).await.into_iter().filter_map(|answer| match answer {
            Ok(Ok(Response::Reply { reply, .. })) => Some(reply),
            _ => None,
        });
        asked.combine([here].into_iter().chain(answers).collect())
    }
}
