//! Keyspace events, published by whoever coordinates the change: to the subscribers of all nodes, as any message is.
//!
//! An event is sent when the change is in this node's memory, beside its way to the other owners. A change that is
//! withdrawn later, because another coordinator wrote beside it, has been told of all the same.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{BufMut, Bytes, BytesMut};

use super::Coordinator;
use super::transaction;
use crate::base::id::Db;
use crate::commands::events::{self, Classes, Event};
use crate::commands::pubsub::News;
use crate::commands::{Answer, Call};
use crate::model::{Draft, RowKey};

/// Which events are published.
#[derive(Default)]
pub struct Notified(AtomicU32);

impl Notified {
    /// From now on these.
    pub fn set(&self, classes: Classes) {
        self.0.store(classes.0, Ordering::Relaxed);
    }

    /// Those that are now.
    pub fn classes(&self) -> Classes {
        Classes(self.0.load(Ordering::Relaxed))
    }
}

impl Coordinator {
    /// Runs a command over a draft; if events are published, notes those that its changes are.
    pub(super) fn change(
        &self,
        call: &Call,
        command: super::write::WriteCommand,
        draft: &mut Draft,
        noted: &mut Vec<Event>,
    ) -> Answer {
        if !self.notified.classes().any() {
            return command(call, draft);
        }
        if transaction::is(call.spec) {
            return transaction::perform(call, draft, &mut |call, draft| note(call, draft, noted));
        }
        draft.save();
        let answer = command(call, draft);
        note(call, draft, noted);
        answer
    }

    /// Publishes events of a database.
    pub fn notify(&self, db: Db, noted: impl IntoIterator<Item = Event>) {
        let classes = self.notified.classes();
        for Event { class, name, key } in noted {
            if !classes.has(class) {
                continue;
            }
            if classes.has(Classes::KEYSPACE) {
                let channel = channel("keyspace", db, &key);
                self.publish(News { shard: false, channel, message: name.clone() });
            }
            if classes.has(Classes::KEYEVENT) {
                let channel = channel("keyevent", db, &name);
                self.publish(News { shard: false, channel, message: key });
            }
        }
    }

    /// Publishes one.
    pub fn notify_one(&self, db: Db, class: Classes, name: &'static str, key: &Bytes) {
        if self.notified.classes().any() {
            let name = Bytes::from_static(name.as_bytes());
            self.notify(db, [Event { class, name, key: key.clone() }]);
        }
    }
}

/// What a command has changed since the draft was saved. What nodes send each other is named by who asked for it.
fn note(call: &Call, draft: &Draft, noted: &mut Vec<Event>) {
    if call.spec.name.starts_with('.') {
        return;
    }
    let already = noted.len();
    for (row, before, after) in draft.changed_since() {
        if let Ok(row) = RowKey::decode(row.clone()) {
            noted.extend(events::of(call.spec, draft.now(), &row.key, &before, &after));
        }
    }
    // Rows stand in the order in which they were changed; what is renamed leaves its old name first, to whoever listens.
    if let Some(own) = noted.get_mut(already..) {
        own.sort_by_key(|event| event.name != "rename_from");
    }
}

fn channel(kind: &str, db: Db, of: &[u8]) -> Bytes {
    let mut name = BytesMut::with_capacity(kind.len() + of.len() + 10);
    name.put_slice(format!("__{kind}@{}__:", db.0).as_bytes());
    name.put_slice(of);
    name.freeze()
}
