//! Publish and subscribe: who hears what, and who is there to hear it.
//!
//! A message goes to the subscribers of every node, whichever node it was published at. What a channel's name hashes to
//! matters to nobody here: shard channels are a second set of names, as in a Redis without a cluster.
//!
//! PUBLISH answers how many connections of *this* node got the message, as a node of Redis Cluster does: it leaves at
//! once and never waits for the slowest of the others. Who needs to know how many listen everywhere has PUBSUB NUMSUB.

use bytes::Bytes;

use super::call::Call;
use super::errors::{Answer, CommandError};
use super::help;
use super::host::Host;
use super::session::{Session, Subscription};
use super::spec::{ClusterCall, Flags, Group, Keys, Run, Spec};
use crate::resp::Reply;

/// The table.
pub static TABLE: &[Spec] = &[
    subscribes("PSUBSCRIBE", "pattern [pattern ...]", Run::Session(subscribe_patterns)).arity(-2).doc(
        "Subscribes to all channels that patterns fit.",
        "2.0.0",
        "O(N) where N is the number of patterns the client is already subscribed to.",
    ),
    Spec::new("PUBLISH", "channel message", Group::PubSub, Run::Node(publish))
        .doc(
            "Sends a message to the subscribers of a channel, on all nodes; answers how many of them this node has.",
            "2.0.0",
            "O(N+M) where N is the number of clients subscribed to the receiving channel and M is the total number of \
             subscribed patterns (by any client).",
        )
        .arity(3)
        .flags(SENDS),
    Spec::new("PUBSUB", "", Group::PubSub, Run::Container)
        .doc("A container for commands about subscriptions.", "2.8.0", "Depends on subcommand.")
        .arity(-2)
        .children(SUBCOMMANDS),
    subscribes("PUNSUBSCRIBE", "[pattern [pattern ...]]", Run::Session(unsubscribe_patterns)).doc(
        "Ends subscriptions to patterns; all of them if none is named.",
        "2.0.0",
        "O(N+M) where N is the number of patterns the client is already subscribed and M is the number of total \
         patterns subscribed in the system (by any client).",
    ),
    Spec::new("SPUBLISH", "shardchannel message", Group::PubSub, Run::Node(publish_shard))
        .doc(
            "Sends a message to the subscribers of a shard channel, on all nodes; answers how many of them this node has.",
            "7.0.0",
            "O(N) where N is the number of clients subscribed to the receiving shard channel.",
        )
        .arity(3)
        .flags(SENDS)
        .keys(Keys::FIRST)
        .access(NO_KEY),
    subscribes("SSUBSCRIBE", "shardchannel [shardchannel ...]", Run::Session(subscribe_shards))
        .arity(-2)
        .keys(Keys::ALL)
        .access(NO_KEY)
        .doc(
            "Subscribes to shard channels.",
            "7.0.0",
            "O(N) where N is the number of shard channels to subscribe to.",
        ),
    subscribes("SUBSCRIBE", "channel [channel ...]", Run::Session(subscribe_channels)).arity(-2).doc(
        "Subscribes to channels.",
        "2.0.0",
        "O(N) where N is the number of channels to subscribe to.",
    ),
    subscribes("SUNSUBSCRIBE", "[shardchannel [shardchannel ...]]", Run::Session(unsubscribe_shards))
        .keys(Keys::ALL)
        .access(NO_KEY)
        .doc(
            "Ends subscriptions to shard channels; all of them if none is named.",
            "7.0.0",
            "O(N) where N is the number of clients already subscribed to a shard channel.",
        ),
    subscribes("UNSUBSCRIBE", "[channel [channel ...]]", Run::Session(unsubscribe_channels)).doc(
        "Ends subscriptions to channels; all of them if none is named.",
        "2.0.0",
        "O(N) where N is the number of clients already subscribed to a channel.",
    ),
];

static SUBCOMMANDS: &[Spec] = &[
    sub("CHANNELS", "[pattern]", channels).arity(-2).doc(
        "Lists channels that somebody is subscribed to, on any node.",
        "2.8.0",
        "O(N) where N is the number of active channels, and assuming constant time pattern matching (relatively short \
         channels and patterns)",
    ),
    help::spec("PUBSUB", Group::PubSub, "6.2.0"),
    sub("NUMPAT", "", patterns).doc(
        "Counts the patterns that somebody is subscribed to, on any node.",
        "2.8.0",
        "O(1)",
    ),
    sub("NUMSUB", "[channel [channel ...]]", numbers).arity(-2).doc(
        "Counts the subscribers of channels, on all nodes.",
        "2.8.0",
        "O(N) for the NUMSUB subcommand, where N is the number of requested channels",
    ),
    sub("SHARDCHANNELS", "[pattern]", shard_channels).arity(-2).doc(
        "Lists shard channels that somebody is subscribed to, on any node.",
        "7.0.0",
        "O(N) where N is the number of active shard channels, and assuming constant time pattern matching (relatively \
         short shard channels).",
    ),
    sub("SHARDNUMSUB", "[shardchannel [shardchannel ...]]", shard_numbers).arity(-2).doc(
        "Counts the subscribers of shard channels, on all nodes.",
        "7.0.0",
        "O(N) for the SHARDNUMSUB subcommand, where N is the number of requested shard channels",
    ),
];

const SENDS: Flags = Flags::PUBSUB.and(Flags::LOADING).and(Flags::STALE).and(Flags::FAST);
const NO_KEY: &[&[&str]] = &[&["not_key"]];

const fn subscribes(name: &'static str, syntax: &'static str, run: Run) -> Spec {
    Spec::new(name, syntax, Group::PubSub, run)
        .arity(-1)
        .flags(Flags::PUBSUB.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE))
}

const fn sub(
    name: &'static str,
    syntax: &'static str,
    run: fn(&Call, &Session) -> Result<ClusterCall, CommandError>,
) -> Spec {
    Spec::new(name, syntax, Group::PubSub, Run::Cluster(run))
        .of("PUBSUB")
        .arity(2)
        .flags(Flags::PUBSUB.and(Flags::LOADING).and(Flags::STALE))
}

/// A message, and where it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whether the channel is a shard channel.
    pub shard: bool,
    /// Its name.
    pub channel: Bytes,
    /// What was said.
    pub message: Bytes,
}

/// What is asked about the subscribers of nodes. Each answers with an array: of names, or of numbers in the order of
/// the channels asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listening {
    /// Names of channels that have subscribers, and that a pattern fits.
    Channels {
        /// Of shard channels.
        shard: bool,
        /// Only those that it fits.
        pattern: Option<Bytes>,
    },
    /// How many subscribers channels have.
    Numbers {
        /// Of shard channels.
        shard: bool,
        /// Their names.
        channels: Vec<Bytes>,
    },
    /// Patterns that have subscribers.
    Patterns,
}

impl Listening {
    /// The reply that the nodes' answers make together.
    pub fn combine(&self, answers: Vec<Reply>) -> Reply {
        let items = |reply: Reply| match reply {
            Reply::Array(items) => items,
            _ => Vec::new(),
        };
        let answers = answers.into_iter().map(items);
        match self {
            Listening::Numbers { channels, .. } => {
                let mut sums = vec![0i64; channels.len()];
                for numbers in answers {
                    sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum = sum.saturating_add(int_of(&number)));
                }
                let pairs = channels.iter().zip(sums);
                Reply::array(pairs.flat_map(|(name, sum)| [Reply::Bulk(name.clone()), Reply::Int(sum)]))
            }
            Listening::Channels { .. } => Reply::array(united(answers).into_iter().map(Reply::Bulk)),
            Listening::Patterns => Reply::Int(united(answers).len().try_into().unwrap_or(i64::MAX)),
        }
    }
}

fn united(answers: impl Iterator<Item = Vec<Reply>>) -> std::collections::BTreeSet<Bytes> {
    let name = |reply| if let Reply::Bulk(name) = reply { Some(name) } else { None };
    answers.flatten().filter_map(name).collect()
}

fn int_of(reply: &Reply) -> i64 {
    if let Reply::Int(number) = reply { *number } else { 0 }
}

fn publish(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    send(call, host, false)
}

fn publish_shard(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    send(call, host, true)
}

fn send(call: &Call, host: &dyn Host, shard: bool) -> Answer {
    let news = News { shard, channel: call.arg(1).clone(), message: call.arg(2).clone() };
    Ok(Reply::Int(host.publish(news).try_into().unwrap_or(i64::MAX)))
}

fn subscribe_channels(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    subscribe(call, session, host, Subscription::Channel)
}

fn subscribe_patterns(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    subscribe(call, session, host, Subscription::Pattern)
}

fn subscribe_shards(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    subscribe(call, session, host, Subscription::Shard)
}

fn unsubscribe_channels(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    unsubscribe(call, session, host, Subscription::Channel)
}

fn unsubscribe_patterns(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    unsubscribe(call, session, host, Subscription::Pattern)
}

fn unsubscribe_shards(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    unsubscribe(call, session, host, Subscription::Shard)
}

/// One confirmation for each name. What was heard before comes before them, as it would have on its own.
fn subscribe(call: &Call, session: &mut Session, host: &dyn Host, kind: Subscription) -> Answer {
    let mut replies = host.messages(session.id);
    for name in &call.args[1..] {
        if host.subscribe(session.id, kind, name) {
            session.subscribed.add(kind);
        }
        replies.push(confirmation(kind.word(), Reply::Bulk(name.clone()), session, kind));
    }
    Ok(Reply::Several(replies))
}

/// The same for what ends: what was heard until then comes first, and nothing after it.
fn unsubscribe(call: &Call, session: &mut Session, host: &dyn Host, kind: Subscription) -> Answer {
    let names = match call.args.get(1..) {
        Some(names @ [_, ..]) => names.to_vec(),
        _ => host.subscriptions(session.id, kind),
    };
    let word = match kind {
        Subscription::Channel => "unsubscribe",
        Subscription::Pattern => "punsubscribe",
        Subscription::Shard => "sunsubscribe",
    };
    let mut confirmed = Vec::with_capacity(names.len().max(1));
    for name in &names {
        if host.unsubscribe(session.id, kind, name) {
            session.subscribed.remove(kind);
        }
        confirmed.push(confirmation(word, Reply::Bulk(name.clone()), session, kind));
    }
    if names.is_empty() {
        confirmed.push(confirmation(word, Reply::Nil, session, kind));
    }
    let mut replies = host.messages(session.id);
    replies.append(&mut confirmed);
    Ok(Reply::Several(replies))
}

fn confirmation(word: &'static str, name: Reply, session: &Session, kind: Subscription) -> Reply {
    let count = session.subscribed.counted_with(kind);
    Reply::Push(vec![Reply::bulk_static(word), name, Reply::Int(count.into())])
}

/// Ends all subscriptions of a connection; what it heard until then.
pub(super) fn leave(session: &mut Session, host: &dyn Host) -> Vec<Reply> {
    if !session.subscribed.any() {
        return Vec::new();
    }
    for kind in [Subscription::Channel, Subscription::Pattern, Subscription::Shard] {
        host.subscriptions(session.id, kind).iter().for_each(|name| {
            host.unsubscribe(session.id, kind, name);
        });
    }
    session.subscribed = Default::default();
    host.messages(session.id)
}

fn channels(call: &Call, _: &Session) -> Result<ClusterCall, CommandError> {
    listed(call, false)
}

fn shard_channels(call: &Call, _: &Session) -> Result<ClusterCall, CommandError> {
    listed(call, true)
}

fn listed(call: &Call, shard: bool) -> Result<ClusterCall, CommandError> {
    match call.args {
        [_, _] => Ok(ClusterCall::Listening(Listening::Channels { shard, pattern: None })),
        [_, _, pattern] => Ok(ClusterCall::Listening(Listening::Channels { shard, pattern: Some(pattern.clone()) })),
        _ => Err(super::errors::misused(call)),
    }
}

fn numbers(call: &Call, _: &Session) -> Result<ClusterCall, CommandError> {
    Ok(ClusterCall::Listening(Listening::Numbers { shard: false, channels: call.args[2..].to_vec() }))
}

fn shard_numbers(call: &Call, _: &Session) -> Result<ClusterCall, CommandError> {
    Ok(ClusterCall::Listening(Listening::Numbers { shard: true, channels: call.args[2..].to_vec() }))
}

fn patterns(_: &Call, _: &Session) -> Result<ClusterCall, CommandError> {
    Ok(ClusterCall::Listening(Listening::Patterns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Bench;

    #[test]
    fn each_name_is_confirmed_with_how_many_there_are_now() {
        let mut bench = Bench::new();
        let confirmed = |word: &str, name: &str, count: u32| {
            format!("*3\r\n${}\r\n{word}\r\n${}\r\n{name}\r\n:{count}\r\n", word.len(), name.len())
        };
        let both = [confirmed("subscribe", "a", 1), confirmed("subscribe", "b", 2)].concat();
        bench.check("SUBSCRIBE a b", &both);
        bench.check("SUBSCRIBE a", &confirmed("subscribe", "a", 2));
        bench.check("PSUBSCRIBE a*", &confirmed("psubscribe", "a*", 3));
        bench.check("SSUBSCRIBE a", &confirmed("ssubscribe", "a", 1));
        bench.check("UNSUBSCRIBE c", &confirmed("unsubscribe", "c", 3));
        bench.check("UNSUBSCRIBE", &[confirmed("unsubscribe", "a", 2), confirmed("unsubscribe", "b", 1)].concat());
        bench.check("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:1\r\n");
        bench.check("SUNSUBSCRIBE", &confirmed("sunsubscribe", "a", 0));
        bench.check("PUNSUBSCRIBE", &confirmed("punsubscribe", "a*", 0));
        assert!(!bench.session.subscribed.any());
    }

    #[test]
    fn a_subscriber_of_resp2_may_do_little_else() {
        let mut bench = Bench::new();
        bench.run("SUBSCRIBE a");
        let refused = "-ERR Can't execute 'client|id': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
                       allowed in this context\r\n";
        bench.check("CLIENT ID", refused);
        bench.check("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        bench.check("PING x", "*2\r\n$4\r\npong\r\n$1\r\nx\r\n");
        bench.check("RESET", "+RESET\r\n");
        bench.check("CLIENT ID", ":5\r\n");
        bench.run("HELLO 3");
        bench.check("SUBSCRIBE a", ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
        bench.check("CLIENT ID", ":5\r\n");
        bench.check("PING", "+PONG\r\n");
    }

    #[test]
    fn what_nodes_answer_is_put_together() {
        let names = |names: &[&'static str]| Reply::array(names.iter().map(|name| Reply::bulk_static(name)));
        let channels = Listening::Channels { shard: false, pattern: None };
        assert_eq!(channels.combine(vec![names(&["b", "a"]), names(&["a", "c"])]), names(&["a", "b", "c"]));
        assert_eq!(Listening::Patterns.combine(vec![names(&["a*"]), names(&["a*", "b*"])]), Reply::Int(2));
        let numbers = Listening::Numbers { shard: false, channels: vec!["a".into(), "b".into()] };
        let counts = |one, other| Reply::array([Reply::Int(one), Reply::Int(other)]);
        let sums = [Reply::bulk_static("a"), Reply::Int(4), Reply::bulk_static("b"), Reply::Int(1)];
        assert_eq!(numbers.combine(vec![counts(1, 0), counts(3, 1)]), Reply::array(sums));
    }
}
