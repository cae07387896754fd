//! The subscribers of this node: who listens to what, and what each has heard and was not sent yet.
//!
//! A message is put into the inbox of each who listens, under one lock of the register, so that two messages arrive
//! everywhere in one order. The connection writes what is in its inbox whenever it waits for requests. An inbox is
//! bounded by `client-output-buffer-limit pubsub`: over the hard limit, or over the soft one for too long, its client is
//! disconnected, as in Redis.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::clients::Client;
use crate::base::glob;
use crate::commands::Session;
use crate::commands::pubsub::{Listening, News};
use crate::commands::session::Subscription;
use crate::config::{OutputLimit, Settings};
use crate::replication::publish::Audience;
use crate::resp::Reply;

/// What a message takes in an inbox beside its text.
const MESSAGE_BYTES: usize = 64;

/// All subscribers of a node.
pub struct PubSub {
    register: RwLock<Register>,
    settings: Arc<Settings>,
}

type Listeners = BTreeMap<u64, Arc<Inbox>>;

#[derive(Default)]
struct Register {
    channels: HashMap<Bytes, Listeners>,
    shards: HashMap<Bytes, Listeners>,
    patterns: BTreeMap<Bytes, Listeners>,
    clients: HashMap<u64, Subscriber>,
}

struct Subscriber {
    inbox: Arc<Inbox>,
    names: BTreeSet<(Subscription, Bytes)>,
}

/// What one client has heard and was not sent yet.
pub struct Inbox {
    client: Arc<Client>,
    waiting: Mutex<Waiting>,
    /// Rung when there is something in it.
    bell: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Reply>,
    /// Weight of the messages, and of those that are being written.
    bytes: usize,
    writing: usize,
    /// Since when it has been over the soft limit.
    over_since: Option<Instant>,
}

impl PubSub {
    /// Nobody listens yet; limits are those of `settings`.
    pub fn new(settings: Arc<Settings>) -> PubSub {
        PubSub { register: RwLock::default(), settings }
    }

    /// Has a client hear what is published under a name; false if it does already.
    pub fn subscribe(&self, id: u64, client: Arc<Client>, kind: Subscription, name: &Bytes) -> bool {
        let mut register = self.register.write();
        let new = || Subscriber { inbox: Arc::new(Inbox::of(client)), names: BTreeSet::new() };
        let subscriber = register.clients.entry(id).or_insert_with(new);
        let (inbox, added) = (subscriber.inbox.clone(), subscriber.names.insert((kind, name.clone())));
        if added {
            register.listeners(kind, name).insert(id, inbox);
        }
        added
    }

    /// Ends that; false if it did not. A client without subscriptions keeps its inbox until it is [`PubSub::forget`]ten.
    pub fn unsubscribe(&self, id: u64, kind: Subscription, name: &Bytes) -> bool {
        let mut register = self.register.write();
        let Some(subscriber) = register.clients.get_mut(&id) else { return false };
        let removed = subscriber.names.remove(&(kind, name.clone()));
        if removed {
            register.take_out(id, kind, name);
        }
        removed
    }

    /// What a client is subscribed to.
    pub fn subscriptions(&self, id: u64, kind: Subscription) -> Vec<Bytes> {
        let register = self.register.read();
        let names = register.clients.get(&id).into_iter().flat_map(|subscriber| &subscriber.names);
        names.filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect()
    }

    /// The inbox of a client that has ever subscribed.
    pub fn inbox(&self, id: u64) -> Option<Arc<Inbox>> {
        self.register.read().clients.get(&id).map(|subscriber| subscriber.inbox.clone())
    }

    /// A client has left.
    pub fn forget(&self, id: u64) {
        if !self.register.read().clients.contains_key(&id) {
            return;
        }
        let mut register = self.register.write();
        if let Some(subscriber) = register.clients.remove(&id) {
            subscriber.names.iter().for_each(|(kind, name)| register.take_out(id, *kind, name));
        }
    }

    /// How many channels, patterns and shard channels somebody listens to.
    pub fn counts(&self) -> [u64; 3] {
        let register = self.register.read();
        [register.channels.len(), register.patterns.len(), register.shards.len()].map(|count| count as u64)
    }

    /// Disconnects whoever has been over the soft limit for too long. To be called about once a second: somebody to whom
    /// nothing more is said is looked at here only.
    pub fn check_limits(&self) {
        let limit = self.limit();
        for subscriber in self.register.read().clients.values() {
            subscriber.inbox.check(&mut subscriber.inbox.waiting.lock(), &limit);
        }
    }

    fn limit(&self) -> OutputLimit {
        self.settings.config().pubsub_output_limit
    }
}

impl Audience for PubSub {
    fn hear(&self, news: &News) -> usize {
        let register = self.register.read();
        if register.clients.is_empty() {
            return 0;
        }
        let limit = self.limit();
        let News { shard, channel, message } = news;
        let (names, word) = if *shard { (&register.shards, "smessage") } else { (&register.channels, "message") };
        let said = [Reply::bulk_static(word), Reply::Bulk(channel.clone()), Reply::Bulk(message.clone())];
        let mut heard = 0;
        for inbox in names.get(channel).into_iter().flat_map(BTreeMap::values) {
            inbox.put(&said, &limit);
            heard += 1;
        }
        let fitting = register.patterns.iter().filter(|(pattern, _)| !shard && glob::matches(pattern, channel));
        for (pattern, listeners) in fitting {
            let [_, channel, message] = &said;
            let pattern = Reply::Bulk(pattern.clone());
            let said = [Reply::bulk_static("pmessage"), pattern, channel.clone(), message.clone()];
            listeners.values().for_each(|inbox| inbox.put(&said, &limit));
            heard += listeners.len();
        }
        heard
    }

    fn listening(&self, asked: &Listening) -> Reply {
        let register = self.register.read();
        let names = |shard: bool| if shard { &register.shards } else { &register.channels };
        match asked {
            Listening::Channels { shard, pattern } => {
                let fits = |name: &&Bytes| pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, name));
                Reply::array(names(*shard).keys().filter(fits).cloned().map(Reply::Bulk))
            }
            Listening::Numbers { shard, channels } => {
                let count = |name| names(*shard).get(name).map_or(0, BTreeMap::len);
                Reply::array(channels.iter().map(|name| Reply::Int(count(name) as i64)))
            }
            Listening::Patterns => Reply::array(register.patterns.keys().cloned().map(Reply::Bulk)),
        }
    }
}

impl Register {
    fn listeners(&mut self, kind: Subscription, name: &Bytes) -> &mut Listeners {
        match kind {
            Subscription::Channel => self.channels.entry(name.clone()).or_default(),
            Subscription::Shard => self.shards.entry(name.clone()).or_default(),
            Subscription::Pattern => self.patterns.entry(name.clone()).or_default(),
        }
    }

    fn take_out(&mut self, id: u64, kind: Subscription, name: &Bytes) {
        let listeners = self.listeners(kind, name);
        listeners.remove(&id);
        if listeners.is_empty() {
            match kind {
                Subscription::Channel => drop(self.channels.remove(name)),
                Subscription::Shard => drop(self.shards.remove(name)),
                Subscription::Pattern => drop(self.patterns.remove(name)),
            }
        }
    }
}

impl Inbox {
    fn of(client: Arc<Client>) -> Inbox {
        Inbox { client, waiting: Mutex::default(), bell: Notify::new() }
    }

    fn put(&self, said: &[Reply], limit: &OutputLimit) {
        let mut waiting = self.waiting.lock();
        waiting.bytes = waiting.bytes.saturating_add(weight(said));
        waiting.messages.push_back(Reply::Push(said.to_vec()));
        self.check(&mut waiting, limit);
        if waiting.messages.len() == 1 {
            self.bell.notify_one();
        }
    }

    /// Disconnects the client if it leaves more unread than it may.
    fn check(&self, waiting: &mut Waiting, limit: &OutputLimit) {
        let bytes = waiting.bytes.saturating_add(waiting.writing) as u64;
        let over = |most: u64| most > 0 && bytes > most;
        let too_long = over(limit.soft) && waiting.over_since.is_some_and(|since| since.elapsed() > limit.soft_for);
        waiting.over_since = waiting.over_since.or_else(|| Some(Instant::now())).filter(|_| over(limit.soft));
        if over(limit.hard) || too_long {
            // What it was not sent it will never be sent: nothing more is kept for it.
            waiting.messages.clear();
            waiting.bytes = 0;
            let state = self.client.state.lock();
            let Session { id, addr, .. } = &state.session;
            tracing::warn!("Client id={id} addr={addr} closed for overcoming of output buffer limits.");
            drop(state);
            self.client.kill.notify_one();
        }
    }

    /// Waits until there is something in it.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Takes messages off it, in their order, until they weigh `most`. They count until [`Inbox::written`].
    pub fn take(&self, most: usize) -> Vec<Reply> {
        let mut waiting = self.waiting.lock();
        let mut taken = Vec::new();
        while waiting.writing < most {
            let Some(message) = waiting.messages.pop_front() else { break };
            if let Reply::Push(said) = &message {
                let weight = weight(said);
                waiting.bytes = waiting.bytes.saturating_sub(weight);
                waiting.writing = waiting.writing.saturating_add(weight);
            }
            taken.push(message);
        }
        taken
    }

    /// What was taken is written, or somebody else counts it.
    pub fn written(&self) {
        self.waiting.lock().writing = 0;
    }
}

fn weight(said: &[Reply]) -> usize {
    let texts = said.iter().map(|part| if let Reply::Bulk(text) = part { text.len() } else { 0 });
    texts.sum::<usize>().saturating_add(MESSAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::server::clients::Clients;

    struct Stage {
        pubsub: PubSub,
        clients: Clients,
    }

    impl Stage {
        fn new(config: &str) -> Stage {
            let settings = Sources { stdin: Some(config.to_owned()), ..Sources::default() }.load().unwrap();
            Stage { pubsub: PubSub::new(Arc::new(settings)), clients: Clients::default() }
        }

        fn enter(&self, id: u64) -> Arc<Client> {
            self.clients.add(Session { id, ..Session::default() })
        }

        fn subscribe(&self, id: u64, kind: Subscription, name: &'static str) -> bool {
            let client = self.clients.get(id).unwrap_or_else(|| self.enter(id));
            self.pubsub.subscribe(id, client, kind, &name.into())
        }

        fn say(&self, channel: &'static str, message: &'static str) -> usize {
            self.pubsub.hear(&News { shard: false, channel: channel.into(), message: message.into() })
        }

        /// Last words of what a client has heard.
        fn heard(&self, id: u64) -> Vec<String> {
            let inbox = self.pubsub.inbox(id).unwrap();
            let messages = inbox.take(usize::MAX);
            inbox.written();
            let last = |message: &Reply| match message {
                Reply::Push(said) => match said.last() {
                    Some(Reply::Bulk(text)) => String::from_utf8_lossy(text).into_owned(),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            };
            messages.iter().map(last).collect()
        }

        fn is_killed(&self, id: u64) -> bool {
            use futures_util::FutureExt;
            self.clients.get(id).unwrap().kill.notified().now_or_never().is_some()
        }
    }

    #[test]
    fn who_listens_hears_in_order_and_who_has_left_hears_nothing() {
        let stage = Stage::new("");
        assert!(stage.subscribe(1, Subscription::Channel, "a"));
        assert!(!stage.subscribe(1, Subscription::Channel, "a"));
        assert!(stage.subscribe(2, Subscription::Pattern, "a*"));
        assert!(stage.subscribe(1, Subscription::Pattern, "*"));
        assert_eq!((stage.say("a", "1"), stage.say("ab", "2"), stage.say("b", "3")), (3, 2, 1));
        assert_eq!(stage.heard(1), ["1", "1", "2", "3"], "once for each of its subscriptions that fit");
        assert_eq!(stage.heard(2), ["1", "2"]);
        assert!(stage.pubsub.unsubscribe(1, Subscription::Channel, &"a".into()));
        stage.pubsub.forget(2);
        assert_eq!(stage.say("a", "4"), 1);
        assert_eq!(stage.pubsub.counts(), [0, 1, 0]);
        stage.pubsub.forget(1);
        assert_eq!((stage.say("a", "5"), stage.pubsub.counts()), (0, [0, 0, 0]));
    }

    #[test]
    fn shard_channels_are_names_of_their_own() {
        let stage = Stage::new("");
        stage.subscribe(1, Subscription::Shard, "a");
        stage.subscribe(2, Subscription::Channel, "a");
        stage.subscribe(3, Subscription::Pattern, "*");
        let news = News { shard: true, channel: "a".into(), message: "m".into() };
        assert_eq!(stage.pubsub.hear(&news), 1);
        assert_eq!((stage.heard(1), stage.heard(2).len(), stage.heard(3).len()), (vec!["m".to_owned()], 0, 0));
    }

    #[test]
    fn who_leaves_more_unread_than_the_hard_limit_is_disconnected() {
        let stage = Stage::new("client-output-buffer-limit pubsub 1000 0 0");
        stage.subscribe(1, Subscription::Channel, "a");
        let long: &'static str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        for _ in 0..5 {
            stage.say("a", long);
        }
        assert!(!stage.is_killed(1));
        let inbox = stage.pubsub.inbox(1).unwrap();
        assert_eq!(inbox.take(usize::MAX).len(), 5);
        for _ in 0..2 {
            stage.say("a", long);
        }
        assert!(stage.is_killed(1), "what is being written counts");
    }

    #[test]
    fn who_stays_above_the_soft_limit_is_disconnected_and_who_comes_down_is_not() {
        let stage = Stage::new("client-output-buffer-limit pubsub 0 100 0");
        stage.subscribe(1, Subscription::Channel, "a");
        stage.subscribe(2, Subscription::Channel, "a");
        stage.say("a", "1");
        stage.say("a", "2");
        stage.heard(2);
        std::thread::sleep(std::time::Duration::from_millis(2));
        stage.pubsub.check_limits();
        assert!(stage.is_killed(1) && !stage.is_killed(2));
    }
}
