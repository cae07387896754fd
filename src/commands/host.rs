//! What a node tells its commands, and what they may ask of it: plain data in and out, nothing that waits.

use bytes::Bytes;

use super::facts::{ClientFacts, ClusterFacts, Facts, Histogram, SlowEntry};
use super::operate::Asked;
use super::pubsub::News;
use super::session::Subscription;
use crate::resp::Reply;

/// The node that a command runs on, as far as commands may know and change it.
///
/// Errors are the whole text for the client, code included (`ERR The server is running without a config file`).
pub trait Host: Send + Sync {
    /// Wall time in milliseconds since the epoch.
    fn now_ms(&self) -> u64;

    /// Wall time in microseconds since the epoch, for `TIME`.
    fn now_us(&self) -> u64;

    /// Fills `out` with bytes that nobody can guess.
    fn random(&self, out: &mut [u8]);

    /// How many databases there are.
    fn databases(&self) -> u32;

    /// Whether clients must authenticate.
    fn password_required(&self) -> bool;

    /// Whether `password` is the user's. Takes as long whatever is wrong. Without a password being set, the user
    /// `default` may come with any.
    fn authenticate(&self, user: &[u8], password: &[u8]) -> bool;

    /// All client connections of this node, in the order of their ids, as they were after their last command.
    fn clients(&self) -> Vec<ClientFacts>;

    /// Ends these connections at once. The caller ends its own by itself.
    fn kill(&self, clients: &[u64]);

    /// Makes commands wait, or ends that; a later pause replaces an earlier one.
    fn pause(&self, pause: Option<Pause>);

    /// Wakes a client that waits in a command; false if it does not.
    fn unblock(&self, client: u64, with_error: bool) -> bool;

    /// Has a client hear what is published under a name; false if it does already.
    fn subscribe(&self, client: u64, kind: Subscription, name: &Bytes) -> bool;

    /// Ends that; false if it did not.
    fn unsubscribe(&self, client: u64, kind: Subscription, name: &Bytes) -> bool;

    /// What a client is subscribed to, in the order of the names.
    fn subscriptions(&self, client: u64, kind: Subscription) -> Vec<Bytes>;

    /// Takes what a client has heard and was not sent yet.
    fn messages(&self, client: u64) -> Vec<Reply>;

    /// Sends a message to the subscribers of all nodes; answers how many of them this node has.
    fn publish(&self, news: News) -> usize;

    /// Names and values of the settings that `patterns` name, as `CONFIG GET`: each once.
    fn config_get(&self, patterns: &[Bytes]) -> Vec<(String, String)>;

    /// Changes all of these settings or none.
    fn config_set(&self, pairs: &[(Bytes, Bytes)]) -> Result<(), String>;

    /// Writes the settings into the file that the node was started with.
    fn config_rewrite(&self) -> Result<(), String>;

    /// Sets back the sums in [`Facts`].
    fn reset_stats(&self);

    /// The cluster as its other face shows it now.
    fn cluster(&self) -> ClusterFacts;

    /// What the node knows of itself now.
    fn facts(&self) -> Facts;

    /// The latest `count` commands that took long, latest first.
    fn slow_commands(&self, count: usize) -> Vec<SlowEntry>;

    /// How many of them are kept.
    fn slow_commands_len(&self) -> usize;

    /// Forgets them.
    fn reset_slow_commands(&self);

    /// How long calls took, per command that was called, in the order of their names.
    fn histograms(&self) -> Vec<Histogram>;

    /// The allocator's statistics as text for people; none if it keeps none.
    fn allocator_report(&self) -> Option<String>;

    /// Has the allocator give back what it can.
    fn purge_memory(&self);

    /// Begins to write everything to disk; the answer does not wait for it.
    fn sync(&self);

    /// Answers an operator; every answer's shape is in the docs of the command that asks.
    fn operate(&self, asked: &Asked) -> Result<Reply, String>;

    /// Stops the node once this returns. `now`: without waiting for replicas to catch up.
    fn shutdown(&self, now: bool);

    /// Takes back a shutdown that has not happened yet; false if there is none.
    fn abort_shutdown(&self) -> bool;
}

/// What `CLIENT PAUSE` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Until when, in milliseconds since the epoch.
    pub until_ms: u64,
    /// Only commands that write wait.
    pub writes_only: bool,
}
