//! Transactions, as far as a connection has to do with them: what begins one, gives one up, and says what must not have
//! changed. Commands that come in between are queued by whoever serves the connection, who also knows what EXEC does.
//!
//! Keys of one slot: one draft, so all or nothing, and isolated. Keys of several: in order, each exact, not isolated.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::call::Call;
use super::errors::{Answer, CommandError};
use super::host::Host;
use super::session::Session;
use super::spec::{ClusterCall, Flags, Group, Keys, Run, Spec};
use crate::base::id::Db;
use crate::resp::Reply;

/// The table.
pub static TABLE: &[Spec] = &[
    Spec::new("DISCARD", "", Group::Transactions, Run::Session(discard))
        .doc("Gives up a transaction.", "2.0.0", "O(N), when N is the number of queued commands")
        .flags(CHEAP),
    Spec::new("EXEC", "", Group::Transactions, Run::Session(exec))
        .doc(
            "Runs the commands of a transaction: isolated and all or nothing if their keys lie in one slot.",
            "1.2.0",
            "Depends on commands in the transaction",
        )
        .flags(ALWAYS.and(Flags::SKIP_SLOWLOG)),
    Spec::new("MULTI", "", Group::Transactions, Run::Session(multi))
        .doc("Begins a transaction: commands are queued until EXEC.", "1.2.0", "O(1)")
        .flags(CHEAP),
    Spec::new("UNWATCH", "", Group::Transactions, Run::Session(unwatch))
        .doc("Forgets the keys that are watched.", "2.2.0", "O(1)")
        .flags(CHEAP),
    Spec::new("WATCH", "key [key ...]", Group::Transactions, Run::Cluster(watch))
        .doc("Lets the next EXEC do nothing if one of the keys has changed by then.", "2.2.0", "O(1) for every key.")
        .arity(-2)
        .flags(CHEAP)
        .keys(Keys::ALL)
        .access(&[&["RO"]]),
];

const ALWAYS: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);
const CHEAP: Flags = ALWAYS.and(Flags::FAST).and(Flags::ALLOW_BUSY);

/// EXEC after something could not be queued.
pub const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";
/// An EXEC that cannot be run for itself: what it was to run is given up.
pub fn aborted(why: CommandError) -> CommandError {
    match why {
        CommandError::Refused(text) => {
            let why = text.strip_prefix("ERR ").unwrap_or(&text);
            format!("EXECABORT Transaction discarded because of: {why}").into()
        }
        fault => fault,
    }
}

/// A command that cannot be queued.
pub const NOT_IN_MULTI: &str = "ERR Command not allowed inside a transaction";

/// A transaction that a connection has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Multi {
    /// How many commands are queued.
    pub queued: u32,
    /// Bytes of their arguments.
    pub bytes: u64,
    /// One could not be queued: EXEC will do nothing.
    pub failed: bool,
}

/// A key that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedKey {
    /// Its database.
    pub db: Db,
    /// Its name.
    pub key: Bytes,
    /// What it was when it was looked at: empty if it was absent.
    pub seen: Bytes,
}

/// The keys that a connection watches, shared with looks that are under way.
pub type Watched = Arc<Mutex<Vec<WatchedKey>>>;

fn multi(_: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    if session.multi.is_some() {
        return Err("ERR MULTI calls can not be nested".into());
    }
    session.multi = Some(Multi::default());
    Ok(Reply::ok())
}

/// Whoever serves the connection runs what is queued; here nothing is.
fn exec(_: &Call, _: &mut Session, _: &dyn Host) -> Answer {
    Err("ERR EXEC without MULTI".into())
}

fn discard(_: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    if session.multi.take().is_none() {
        return Err("ERR DISCARD without MULTI".into());
    }
    session.watched = None;
    Ok(Reply::ok())
}

fn unwatch(_: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    session.watched = None;
    Ok(Reply::ok())
}

fn watch(call: &Call, session: &Session) -> Result<ClusterCall, CommandError> {
    match session.multi {
        Some(_) => Err("ERR WATCH inside MULTI is not allowed".into()),
        None => Ok(ClusterCall::Watch(call.args[1..].to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Bench;

    #[test]
    fn what_was_not_begun_cannot_end() {
        let mut bench = Bench::new();
        bench.check("EXEC", "-ERR EXEC without MULTI\r\n");
        bench.check("DISCARD", "-ERR DISCARD without MULTI\r\n");
        bench.check("MULTI", "+OK\r\n");
        bench.check("MULTI", "-ERR MULTI calls can not be nested\r\n");
        bench.check("DISCARD", "+OK\r\n");
        assert!(bench.session.multi.is_none());
        bench.check("UNWATCH", "+OK\r\n");
    }
}
