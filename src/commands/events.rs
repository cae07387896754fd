//! Keyspace events: what a command's changes are called where clients listen to what becomes of keys
//! (`notify-keyspace-events`).
//!
//! Events are read off what became of each key, not announced by each command: whether it is there before and after,
//! whether it ends at another time, and the event that the command's declaration names. So no command can forget its own.
//!
//! Deliberately absent: `keymiss` (reads are not watched), `evicted` and what modules do, of which there is none here.

use bytes::Bytes;
use smallvec::SmallVec;

use super::spec::{Group, Spec};
use crate::base::kind::Kind;
use crate::causality::Cell;
use crate::causality::expiry::{Deadline, of_whole};
use crate::model::Visible;
use crate::model::look::kind_of_head;

/// Which events are published, and where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Classes(pub u32);

impl Classes {
    /// `K`: to `__keyspace@<db>__:<key>`.
    pub const KEYSPACE: Classes = Classes(1);
    /// `E`: to `__keyevent@<db>__:<event>`.
    pub const KEYEVENT: Classes = Classes(1 << 1);
    /// `g`: what can be done to any key.
    pub const GENERIC: Classes = Classes(1 << 2);
    /// `$`
    pub const STRING: Classes = Classes(1 << 3);
    /// `l`
    pub const LIST: Classes = Classes(1 << 4);
    /// `s`
    pub const SET: Classes = Classes(1 << 5);
    /// `h`
    pub const HASH: Classes = Classes(1 << 6);
    /// `z`
    pub const SORTED_SET: Classes = Classes(1 << 7);
    /// `x`: what has expired.
    pub const EXPIRED: Classes = Classes(1 << 8);
    /// `t`
    pub const STREAM: Classes = Classes(1 << 9);
    /// `n`: keys that were not there before.
    pub const NEW: Classes = Classes(1 << 10);

    /// As `notify-keyspace-events` spells them; letters that name nothing that happens here are passed over.
    pub fn of(text: &str) -> Classes {
        const ALL: &str = "g$lshzxt";
        let letters = text.chars().flat_map(|letter| match letter {
            'A' => ALL.chars().collect::<Vec<_>>(),
            letter => vec![letter],
        });
        letters.fold(Classes::default(), |classes, letter| Classes(classes.0 | Classes::letter(letter).0))
    }

    fn letter(letter: char) -> Classes {
        match letter {
            'K' => Classes::KEYSPACE,
            'E' => Classes::KEYEVENT,
            'g' => Classes::GENERIC,
            '$' => Classes::STRING,
            'l' => Classes::LIST,
            's' => Classes::SET,
            'h' => Classes::HASH,
            'z' => Classes::SORTED_SET,
            'x' => Classes::EXPIRED,
            't' => Classes::STREAM,
            'n' => Classes::NEW,
            _ => Classes::default(),
        }
    }

    /// Whether all of `other` are among them.
    pub const fn has(self, other: Classes) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether anything is published at all: to neither place means no.
    pub const fn any(self) -> bool {
        self.0 & (Classes::KEYSPACE.0 | Classes::KEYEVENT.0) != 0
    }
}

/// Something that became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its class.
    pub class: Classes,
    /// Its name.
    pub name: Bytes,
    /// The key.
    pub key: Bytes,
}

/// What `spec`, run at `now`, made of a key's head row, as events in Redis' order.
pub fn of(spec: &Spec, now: u64, key: &Bytes, before: &Cell, after: &Cell) -> SmallVec<[Event; 2]> {
    let (before, after) = (ends(before, now), ends(after, now));
    let mut events = SmallVec::new();
    let mut add = |class, name: Bytes| events.push(Event { class, name, key: key.clone() });
    let word = Bytes::from_static;
    match (before, after) {
        (None, None) => {}
        (Some(_), None) => {
            match spec.name {
                "RENAME" | "RENAMENX" => {
                    add(Classes::GENERIC, word(b"rename_from"));
                    return events;
                }
                _ if class_of(spec.group) == Classes::STRING || spec.group == Group::Generic => {}
                _ => add(class_of(spec.group), own_event(spec)),
            }
            add(Classes::GENERIC, word(b"del"));
        }
        (before, Some(end)) => {
            if before.is_none() {
                add(Classes::NEW, word(b"new"));
            }
            let lasts = before != Some(end) && end.ms().is_some();
            match spec.name {
                "RENAME" | "RENAMENX" => add(Classes::GENERIC, word(b"rename_to")),
                "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" | "GETEX" | "PERSIST" => {
                    add(Classes::GENERIC, word(if end.ms().is_some() { b"expire" } else { b"persist" }));
                }
                _ => {
                    add(class_of(spec.group), own_event(spec));
                    if lasts && class_of(spec.group) == Classes::STRING {
                        add(Classes::GENERIC, word(b"expire"));
                    }
                }
            }
        }
    }
    events
}

/// When a key ends that is there.
fn ends(cell: &Cell, now: u64) -> Option<Deadline> {
    let text = || Visible::of(cell.versions(), now).map(|visible| visible.deadline());
    match kind_of_head(cell, now)? {
        Kind::Text => text(),
        _ => Some(of_whole(cell.versions())),
    }
}

fn class_of(group: Group) -> Classes {
    match group {
        Group::String | Group::Bitmap | Group::Hyperloglog | Group::Dynamo => Classes::STRING,
        Group::Hash => Classes::HASH,
        Group::Set => Classes::SET,
        _ => Classes::GENERIC,
    }
}

/// The event that a command is known by: nearly always its own name.
fn own_event(spec: &Spec) -> Bytes {
    let word: &'static str = match spec.name {
        "SET" | "SETEX" | "PSETEX" | "SETNX" | "GETSET" | "MSET" | "MSETNX" => "set",
        "INCR" | "DECR" | "INCRBY" | "DECRBY" => "incrby",
        "BITFIELD" => "setbit",
        "BITOP" => "set",
        "PFMERGE" => "pfadd",
        "HMSET" | "HSETNX" => "hset",
        _ if spec.group == Group::Dynamo => "set",
        name => return name.to_ascii_lowercase().into(),
    };
    Bytes::from_static(word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::harness::Replica;
    use crate::commands::resolve;

    /// Names of the events of a line on top of what others made of `k`.
    fn events(before: &[&str], line: &str) -> Vec<Bytes> {
        let mut replica = Replica::new(1);
        before.iter().for_each(|line| drop(replica.run(line)));
        let (was, key) = (replica.cell("k"), Bytes::from_static(b"k"));
        replica.run(line);
        let args = crate::commands::testing::args(line);
        let spec = resolve(&args).unwrap();
        of(spec, replica.now, &key, &was, &replica.cell("k")).into_iter().map(|event| event.name).collect()
    }

    #[test]
    fn events_have_redis_names() {
        for (before, line, expected) in [
            (&[][..], "SET k v", &["new", "set"][..]),
            (&["SET k v"], "GETSET k w", &["set"]),
            (&["SET k v"], "MSET k w", &["set"]),
            (&["SET k v"], "SET k w", &["set"]),
            (&["SET k v"], "SETEX k 100 w", &["set", "expire"]),
            (&["SETEX k 100 w"], "SET k v KEEPTTL", &["set"]),
            (&["SET k 1"], "DECRBY k 2", &["incrby"]),
            (&["SET k 1"], "INCRBYFLOAT k 2", &["incrbyfloat"]),
            (&["SET k v"], "APPEND k w", &["append"]),
            (&["SET k v"], "SETRANGE k 1 w", &["setrange"]),
            (&[], "SETBIT k 1 1", &["new", "setbit"]),
            (&["SET k v"], "BITFIELD k SET u8 0 1", &["setbit"]),
            (&["SET l v"], "BITOP NOT k l", &["new", "set"]),
            (&[], "PFADD k a", &["new", "pfadd"]),
            (&["PFADD l a"], "PFMERGE k l", &["new", "pfadd"]),
            (&["SET k v"], "DEL k", &["del"]),
            (&["SET k v"], "GETDEL k", &["del"]),
            (&["SET k v"], "GETEX k EX 100", &["expire"]),
            (&["SET k v"], "EXPIRE k 100", &["expire"]),
            (&["SET k v"], "EXPIRE k -1", &["del"]),
            (&["SETEX k 100 v"], "PERSIST k", &["persist"]),
            (&["SETEX k 100 v"], "GETEX k PERSIST", &["persist"]),
            (&["SET k v"], "RENAME k l", &["rename_from"]),
            (&["SET l v"], "RENAME l k", &["new", "rename_to"]),
            (&[], "DEL k", &[]),
        ] {
            assert_eq!(events(before, line), expected, "{line} after {before:?}");
        }
    }

    #[test]
    fn classes_are_spelt_as_in_redis() {
        assert!(Classes::of("KEA").has(Classes::EXPIRED) && Classes::of("KEA").any());
        assert!(!Classes::of("A").any() && !Classes::of("KEA").has(Classes::NEW));
        assert!(Classes::of("Ex").has(Classes::KEYEVENT) && !Classes::of("Ex").has(Classes::GENERIC));
    }
}
