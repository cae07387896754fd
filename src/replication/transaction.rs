//! Transactions whose keys lie in one region: all commands of an EXEC over one draft, as one internal command. So it is
//! isolated, one batch, one delta: every replica that the delta reaches has all of it or nothing, whoever dies meanwhile;
//! and it is forwarded, claimed for, acknowledged and thought over again as any write is.
//!
//! What was watched is compared inside the same draft. A watched key is what its versions' dots are: any change gives it
//! other ones, also one of its time to live; so does its end. One that was absent, and is again, has not changed.
//!
//! What a sync or a read repairs travels by rows: a replica that missed a transaction's delta may have parts of it for a
//! moment, but no coordinator that is settled evaluates on such.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use futures_util::future::try_join_all;
use xxhash_rust::xxh3::xxh3_128;

use super::{Coordinator, Finished, Task, arguments};
use crate::base::id::{Db, Region};
use crate::base::num::parse_i64;
use crate::causality::dot::put_dots;
use crate::causality::{Cell, Dot, Local, Payload};
use crate::commands::errors::SYNTAX;
use crate::commands::session::Quorum;
use crate::commands::spec::{Group, Keys, Run, Spec};
use crate::commands::transactions::WatchedKey;
use crate::commands::{Answer, Call, CommandError, resolve};
use crate::model::look::kind_of_head;
use crate::model::{Draft, View};
use crate::resp::{Arguments, Reply};

/// Commands that only nodes send: no client can name them.
pub(super) static INTERNAL: [Spec; 2] = [
    Spec::new(".EXEC", "watched [key seen ...] [count arg ...]", Group::Transactions, Run::Write(exec))
        .arity(-2)
        .keys(Keys::Found(keys)),
    Spec::new(".SEEN", "key", Group::Transactions, Run::Read(seen)).arity(2).keys(Keys::FIRST),
];

/// Whether a command is a transaction.
pub(super) fn is(spec: &Spec) -> bool {
    std::ptr::eq(spec, &INTERNAL[0])
}

/// The transaction of some commands, to be run in the database of all their keys.
pub fn task<'c>(db: Db, quorum: Quorum, watched: &[WatchedKey], commands: impl Iterator<Item = &'c Arguments>) -> Task {
    let number = |count: usize| Bytes::from(count.to_string());
    let mut args = arguments([Bytes::from_static(b".EXEC"), number(watched.len())]);
    for WatchedKey { key, seen, .. } in watched {
        args.extend([key.clone(), seen.clone()]);
    }
    for command in commands {
        args.push(number(command.len()));
        args.extend(command.iter().cloned());
    }
    Task { spec: &INTERNAL[0], args, db, quorum, hops: 0 }
}

/// A transaction's arguments, taken apart.
struct Script<'a> {
    watched: &'a [Bytes],
    /// Where each command begins, and its arguments.
    commands: Vec<(usize, &'a [Bytes])>,
}

impl<'a> Script<'a> {
    fn read(args: &'a [Bytes]) -> Option<Script<'a>> {
        let count = |at: usize| args.get(at).and_then(|arg| usize::try_from(parse_i64(arg)?).ok());
        let end = count(1)?.checked_mul(2)?.checked_add(2)?;
        let (watched, mut at, mut commands) = (args.get(2..end)?, end, Vec::new());
        while at < args.len() {
            let (begin, end) = (at + 1, count(at)?.checked_add(at + 1)?);
            commands.push((begin, args.get(begin..end).filter(|args| !args.is_empty())?));
            at = end;
        }
        Some(Script { watched, commands })
    }
}

fn keys(args: &[Bytes]) -> Vec<usize> {
    let Some(script) = Script::read(args) else { return Vec::new() };
    let mut keys: Vec<usize> = (0..script.watched.len() / 2).map(|at| 2 + at * 2).collect();
    for (begin, args) in script.commands {
        if let Ok(spec) = resolve(args) {
            keys.extend(spec.keys.positions(args).into_iter().map(|at| begin + at));
        }
    }
    keys
}

fn exec(call: &Call, draft: &mut Draft) -> Answer {
    perform(call, draft, &mut |_, _| {})
}

/// Runs a transaction; `note` is called after each of its commands, while what that changed can be told apart. A command
/// that fails changes nothing, and the others are done all the same, as in Redis.
pub(super) fn perform(call: &Call, draft: &mut Draft, note: &mut dyn FnMut(&Call, &Draft)) -> Answer {
    let script = Script::read(call.args).ok_or(SYNTAX)?;
    for [key, seen] in script.watched.as_chunks::<2>().0 {
        let cell = draft.cell(key)?;
        if fingerprint(&cell, draft.now()) != *seen {
            return Ok(Reply::NilArray);
        }
    }
    let mut replies = Vec::with_capacity(script.commands.len());
    for (_, args) in script.commands {
        draft.save();
        let answer = resolve(args).and_then(|spec| {
            let call = Call { spec, args };
            let reply = match spec.run {
                Run::Read(read) => draft.read(|view| read(&call, view)),
                Run::Write(write) => write(&call, draft),
                _ => Err(SYNTAX.into()),
            }?;
            note(&call, draft);
            Ok(reply)
        });
        replies.push(match answer {
            Ok(reply) => reply,
            Err(fault @ CommandError::Fault(_)) => return Err(fault),
            Err(refused) => {
                draft.go_back();
                refused.into_reply()
            }
        });
    }
    Ok(Reply::Array(replies))
}

/// `.SEEN key`: by what WATCH knows it again.
fn seen(call: &Call, view: &mut View) -> Answer {
    let (key, now) = (call.arg(1), view.now());
    let cell = view.cell(key)?;
    Ok(Reply::Bulk(fingerprint(&cell, now)))
}

/// By what a watched key is known again: nothing if it is absent.
fn fingerprint(cell: &Cell, now: u64) -> Bytes {
    if kind_of_head(cell, now).is_none() {
        return Bytes::new();
    }
    // Voids come and go without anything being done to the key.
    let shown = cell.versions().iter().filter(|version| !matches!(version.payload, Payload::Void(_)));
    let dots: Vec<Dot> = shown.map(|version| version.dot).collect();
    let mut out = Vec::new();
    put_dots(&mut out, &dots);
    // Of a collection the other rows count as well.
    out.put_u128(cell.local().map_or(0, Local::digest));
    Bytes::copy_from_slice(&xxh3_128(&out).to_be_bytes())
}

impl Coordinator {
    /// What some keys of a database are known again by, as their coordinators see them.
    pub async fn seen(self: &Arc<Self>, db: Db, quorum: Quorum, keys: &[Bytes]) -> Result<Vec<WatchedKey>, Finished> {
        let looks = keys.iter().map(|key| async move {
            let args = arguments([Bytes::from_static(b".SEEN"), key.clone()]);
            let quorum = Quorum { report: false, ..quorum };
            match self.run(Task { spec: &INTERNAL[1], args, db, quorum, hops: 0 }).await.reply {
                Reply::Bulk(seen) => Ok(WatchedKey { db, key: key.clone(), seen }),
                error @ Reply::Error(_) => Err(Finished::reply(error)),
                _ => Err(Finished::not_done("the coordinator answered something else")),
            }
        });
        try_join_all(looks).await
    }

    /// Whether watched keys are still what they were.
    pub async fn is_unchanged(self: &Arc<Self>, quorum: Quorum, watched: &[WatchedKey]) -> Result<bool, Finished> {
        for key in watched {
            let now = self.seen(key.db, quorum, std::slice::from_ref(&key.key)).await?;
            if now.first().is_none_or(|now| now.seen != key.seen) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The region that all of some keys lie in.
    pub fn one_region<'k>(&self, mut keys: impl Iterator<Item = (Db, &'k Bytes)>) -> Option<Region> {
        let (db, key) = keys.next()?;
        let region = self.region_of(db, key);
        keys.all(|(db, key)| self.region_of(db, key) == region).then_some(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Arguments {
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn a_transaction_names_the_keys_that_it_watches_and_those_of_its_commands() {
        let watched = [WatchedKey { db: Db(0), key: "w".into(), seen: Bytes::new() }];
        let commands = [words("set a 1"), words("mget b c"), words("mset d 2 e 3")];
        let task = task(Db(0), Quorum::default(), &watched, commands.iter());
        let keys: Vec<&[u8]> = keys(&task.args).into_iter().map(|at| &task.args[at][..]).collect();
        assert_eq!(keys, [&b"w"[..], b"a", b"b", b"c", b"d", b"e"]);
    }

    #[test]
    fn arguments_that_are_none_of_ours_are_refused() {
        for line in
            [".EXEC x", ".EXEC 1", ".EXEC 1 k", ".EXEC 0 2 get", ".EXEC 0 0", ".EXEC 0 -1", ".EXEC 9223372036854775807"]
        {
            assert!(Script::read(&words(line)).is_none(), "{line}");
            assert!(keys(&words(line)).is_empty());
        }
    }
}
