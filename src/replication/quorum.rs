//! How many replicas must answer, and which: as a command asks for, else its connection, else its database.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::Task;
use crate::base::id::Db;

/// How many replicas answer a read and a write of each database, and whether stand-ins count, unless the client says
/// otherwise.
pub struct Quorums(Vec<Setting>);

/// What a database is set to.
struct Setting {
    read: AtomicU8,
    write: AtomicU8,
    strict: AtomicBool,
}

/// What a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// How many replicas: R or W.
    pub replicas: usize,
    /// Only owners count.
    pub strict: bool,
}

impl Quorums {
    /// The same for all databases, where stand-ins count.
    pub fn new(databases: u16, read: u8, write: u8) -> Self {
        let setting = || Setting { read: read.into(), write: write.into(), strict: AtomicBool::new(false) };
        Quorums((0..databases).map(|_| setting()).collect())
    }

    /// Sets those of all databases, of which `own` (database, R, W) have theirs. None passes through another value.
    pub fn set(&self, read: u8, write: u8, own: &[(u8, u8, u8)]) {
        for (at, setting) in self.0.iter().enumerate() {
            let own = own.iter().find(|(db, ..)| usize::from(*db) == at);
            let (read, write) = own.map_or((read, write), |(_, read, write)| (*read, *write));
            setting.read.store(read, Ordering::Relaxed);
            setting.write.store(write, Ordering::Relaxed);
        }
    }

    /// In which databases only owners count.
    pub fn set_strict(&self, is_strict: impl Fn(Db) -> bool) {
        for (at, setting) in self.0.iter().enumerate() {
            setting.strict.store(is_strict(Db(at as u8)), Ordering::Relaxed);
        }
    }

    /// What a command needs for a read: never more replicas than there are owners, never none.
    pub fn read(&self, task: &Task, owners: usize) -> Need {
        let set = self.of(task.db).map_or(1, |setting| setting.read.load(Ordering::Relaxed));
        let replicas = usize::from(task.quorum.read.unwrap_or(set)).clamp(1, owners.max(1));
        Need { replicas, strict: task.quorum.strict.unwrap_or(self.is_strict(task.db)) }
    }

    /// What it needs for a write, likewise.
    pub fn write(&self, task: &Task, owners: usize) -> Need {
        let replicas = usize::from(task.quorum.write.unwrap_or(self.write_of(task.db))).clamp(1, owners.max(1));
        Need { replicas, strict: task.quorum.strict.unwrap_or(self.is_strict(task.db)) }
    }

    /// The least W that any database is set to.
    pub fn least_write(&self) -> usize {
        self.0.iter().map(|setting| usize::from(setting.write.load(Ordering::Relaxed))).min().unwrap_or(1).max(1)
    }

    /// W of a database as it is set.
    pub fn write_of(&self, db: Db) -> u8 {
        self.of(db).map_or(1, |setting| setting.write.load(Ordering::Relaxed))
    }

    /// Whether only owners count in a database as it is set.
    pub fn is_strict(&self, db: Db) -> bool {
        self.of(db).is_some_and(|setting| setting.strict.load(Ordering::Relaxed))
    }

    fn of(&self, db: Db) -> Option<&Setting> {
        self.0.get(usize::from(db.0))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::commands::session::Quorum;

    fn task(db: u8, quorum: Quorum) -> Task {
        let args = super::super::arguments(["set", "k", "v"].map(|arg| Bytes::from_static(arg.as_bytes())));
        Task { spec: crate::commands::find(b"set").unwrap(), args, db: Db(db), quorum, hops: 0 }
    }

    fn needs(quorums: &Quorums, task: &Task, owners: usize) -> (usize, usize) {
        (quorums.read(task, owners).replicas, quorums.write(task, owners).replicas)
    }

    #[test]
    fn a_command_goes_by_its_own_quorum_then_by_that_of_its_database_then_by_that_of_all() {
        let quorums = Quorums::new(16, 2, 2);
        quorums.set(2, 2, &[(3, 1, 3)]);
        let unasked = task(3, Quorum::default());
        assert_eq!(needs(&quorums, &unasked, 3), (1, 3));
        let asked = task(3, Quorum { write: Some(2), ..Quorum::default() });
        assert_eq!(needs(&quorums, &asked, 3), (1, 2));
        let elsewhere = task(4, Quorum::default());
        assert_eq!(needs(&quorums, &elsewhere, 3), (2, 2));
        assert_eq!(quorums.write(&unasked, 2).replicas, 2, "no more than there are owners");
        quorums.set(1, 1, &[]);
        assert_eq!((needs(&quorums, &unasked, 3), quorums.least_write()), ((1, 1), 1));
    }

    #[test]
    fn stand_ins_count_unless_the_command_or_else_its_database_says_otherwise() {
        let quorums = Quorums::new(16, 2, 2);
        let asks = |strict| Quorum { strict, ..Quorum::default() };
        assert!(!quorums.write(&task(3, asks(None)), 3).strict);
        assert!(quorums.write(&task(3, asks(Some(true))), 3).strict);
        quorums.set_strict(|db| db == Db(3));
        assert!(quorums.read(&task(3, asks(None)), 3).strict && !quorums.read(&task(4, asks(None)), 3).strict);
        assert!(!quorums.write(&task(3, asks(Some(false))), 3).strict);
    }
}
