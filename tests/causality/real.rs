//! The real replica over a store in memory: what a node keeps of one region, and how tests move it about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use redynamo::base::id::{ActorId, ClusterId, Db, Partition, Region};
use redynamo::causality::context::{ContextKey, Sealer};
use redynamo::causality::expiry::Deadline;
use redynamo::causality::{Clock, Dot};
use redynamo::model::{Delta, Draft, Fault, RowKey, Ttl};
use redynamo::replica::{Applied, Commit, Options, Replica, Snapshot};
use redynamo::ring::Partitions;
use redynamo::storage::tree::{LEAVES, LEAVES_PER_BRANCH};
use redynamo::storage::{MemoryStore, SyncPolicy};

use crate::seeds::Outcome;

/// The region that all tests here are about.
pub const REGION: Region = Region { db: Db(0), partition: Partition(0) };

/// A machine with a disk, and the replica that runs on it.
pub struct Machine {
    pub store: Arc<MemoryStore>,
    pub replica: Replica,
    opened: u64,
    name: u64,
}

impl Machine {
    /// A new one. Its actors are `name` and, should it need others, numbers far above.
    pub fn new(name: u64) -> Machine {
        let store = Arc::new(MemoryStore::new());
        Machine { replica: open(&store, name), store, opened: 0, name }
    }

    pub fn some(count: u64) -> Vec<Machine> {
        (1..=count).map(Machine::new).collect()
    }

    /// Ends the process and starts another one on the same disk: what was committed is there.
    pub fn restart(&mut self) {
        self.reopen(false);
        self.replica.prove();
    }

    /// Opens what the disk has; the cluster may know the node from before.
    pub fn reopen(&mut self, returning: bool) {
        let fresh = self.fresh_actor();
        self.replica = open_as(&self.store, fresh.0, returning);
    }

    /// The same in order.
    pub fn stop_and_start(&mut self) {
        self.replica.checkpoint().unwrap();
        self.commit();
        self.replica.retire().unwrap();
        self.restart();
    }

    /// An id that nobody has had.
    pub fn fresh_actor(&mut self) -> ActorId {
        self.opened += 1;
        ActorId(self.name * 1_000_000 + self.opened)
    }

    /// What is submitted reaches the store.
    pub fn commit(&self) {
        self.replica.committer().commit_pending();
    }

    /// Runs a command over a draft; what it changed is committed, and returned as others are told it.
    pub fn run<T>(&self, command: impl FnOnce(&mut Draft) -> Result<T, Fault>) -> Result<(T, Option<Told>), Fault> {
        self.told(self.replica.update(REGION, 0, command, Some(|delta, conditional| Told { delta, conditional })))
    }

    /// The same after withdrawing an earlier attempt.
    pub fn run_again<T>(
        &self,
        attempt: &Delta,
        command: impl FnOnce(&mut Draft) -> Result<T, Fault>,
    ) -> Result<(T, Option<Told>), Fault> {
        let tell = Some(|delta, conditional| Told { delta, conditional });
        self.told(self.replica.update_again(REGION, 0, attempt, command, tell))
    }

    fn told<T>(&self, done: Result<(T, Option<Commit<Told>>), Fault>) -> Result<(T, Option<Told>), Fault> {
        let (answer, commit) = done?;
        self.commit();
        Ok((answer, commit.and_then(|commit| commit.told)))
    }

    /// A plain SET.
    pub fn set(&self, key: u8, value: &str) -> Result<Told, Fault> {
        let (_, told) = self.run(|draft| set(draft, key, value))?;
        Ok(told.expect("a SET changes something"))
    }

    /// A DEL; nothing if there is nothing.
    pub fn delete(&self, key: u8) -> Result<Option<Told>, Fault> {
        Ok(self.run(|draft| draft.remove(&[key]))?.1)
    }

    pub fn apply(&self, told: &Told) -> Result<Applied, Fault> {
        let applied = self.replica.apply(&told.delta, 0, told.conditional);
        self.commit();
        applied
    }

    /// Dots of a key.
    pub fn dots(&self, key: u8) -> Vec<Dot> {
        self.replica.cell(REGION, &row(key)).unwrap().dots().collect()
    }

    /// All live dots.
    pub fn live(&self, keys: u8) -> BTreeSet<Dot> {
        (0..keys).flat_map(|key| self.dots(key)).collect()
    }

    pub fn clock(&self) -> Clock {
        self.replica.snapshot(REGION).unwrap().0.clock
    }

    /// Pulls the whole region from a peer at once.
    pub fn sync_from(&self, peer: &Machine) -> Result<(), Fault> {
        let mut sync = Sync::begin(self, peer)?;
        while sync.step(self, peer)? {}
        self.commit();
        Ok(())
    }

    /// Reads a key with a peer's help, as a coordinator does that asks before it evaluates.
    pub fn hear(&self, key: u8, peer: &Machine) -> Result<(), Fault> {
        let answer = peer.replica.answer(REGION, &row(key), &self.dots(key))?;
        let heard = Delta::of_row(REGION, row(key), answer.change.clone());
        self.replica.apply(&heard, 0, false)?;
        let reply = Delta::of_row(REGION, row(key), self.replica.reply(REGION, &row(key), &answer)?);
        peer.replica.apply(&reply, 0, false)?;
        self.commit();
        peer.commit();
        Ok(())
    }
}

/// A delta as it travels.
#[derive(Debug, Clone)]
pub struct Told {
    pub delta: Delta,
    pub conditional: bool,
}

impl Told {
    /// The dots that it gives.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.delta.rows.iter().flat_map(|(_, change)| change.new.iter().map(|version| version.dot))
    }

    /// The dots that it replaced.
    pub fn superseded(&self) -> impl Iterator<Item = Dot> + '_ {
        self.delta.rows.iter().flat_map(|(_, change)| change.superseded.iter().copied())
    }
}

/// What ought to be there.
#[derive(Default)]
pub struct Ghost {
    made: BTreeSet<Dot>,
    gone: BTreeSet<Dot>,
}

impl Ghost {
    /// Takes note of a change that was made. Fails if a dot is given twice.
    pub fn note(&mut self, told: &Told) -> Outcome {
        self.gone.extend(told.superseded());
        if told.dots().all(|dot| self.made.insert(dot)) { Ok(()) } else { Err("dot given twice") }
    }

    /// Whether exactly those versions live that nothing superseded.
    pub fn judge(&self, live: &BTreeSet<Dot>) -> Outcome {
        let wanted: BTreeSet<Dot> = self.made.difference(&self.gone).copied().collect();
        match () {
            () if !wanted.is_subset(live) => Err("lost"),
            () if !live.is_subset(&wanted) => Err("resurrected"),
            () => Ok(()),
        }
    }
}

/// A replica refused what it should not have.
pub fn refused(_: Fault) -> &'static str {
    "refused"
}

/// A sync that reads its peer live, leaf by leaf; each side may change under it.
pub struct Sync {
    peer: Snapshot,
    mine: u64,
    leaves: Vec<usize>,
    /// Wrong when set: what the sides forget meanwhile is not noticed.
    pub blind: bool,
}

impl Sync {
    pub fn begin(me: &Machine, peer: &Machine) -> Result<Sync, Fault> {
        let mine = me.replica.incarnation(REGION);
        let (snapshot, _) = peer.replica.snapshot(REGION)?;
        peer.commit();
        let leaves_of = |machine: &Machine| -> Vec<u128> {
            (0..LEAVES / LEAVES_PER_BRANCH).flat_map(|branch| machine.replica.leaves(REGION, branch)).collect()
        };
        let (theirs, ours) = (leaves_of(peer), leaves_of(me));
        let differs = |at: &usize| theirs.get(*at).unwrap_or(&0) != ours.get(*at).unwrap_or(&0);
        Ok(Sync { peer: snapshot, mine, leaves: (0..LEAVES).filter(differs).collect(), blind: false })
    }

    /// Merges one leaf, or joins the clocks at the end; says whether there is more to do.
    pub fn step(&mut self, me: &Machine, peer: &Machine) -> Result<bool, Fault> {
        peer.commit();
        me.commit();
        let Some(leaf) = self.leaves.pop() else {
            let theirs = if self.blind { self.peer.incarnation } else { peer.replica.incarnation(REGION) };
            let mine = if self.blind { me.replica.incarnation(REGION) } else { self.mine };
            me.replica.join(REGION, &self.peer, mine, theirs)?;
            me.commit();
            return Ok(false);
        };
        let mine = me.replica.hashed(REGION, &[leaf as u16])?;
        let found = peer.replica.difference(REGION, &mine.leaves, &[], usize::MAX)?;
        if found.incarnation != self.peer.incarnation && !self.blind {
            return Ok(false);
        }
        let mut rows: BTreeMap<Bytes, _> = found.rows.into_iter().collect();
        for row in mine.rows_of(&found.lacking).chain(mine.whole().iter().cloned()) {
            rows.entry(row).or_default();
        }
        me.replica.merge_rows(REGION, &rows.into_iter().collect::<Vec<_>>(), self.peer.known())?;
        me.commit();
        Ok(true)
    }
}

/// Syncs everyone with everyone until all must be equal, and says which dots live.
pub fn settle(machines: &[Machine], keys: u8) -> Result<BTreeSet<Dot>, &'static str> {
    for _ in 0..3 {
        for me in machines {
            for peer in machines.iter().filter(|peer| !std::ptr::eq(*peer, me)) {
                me.sync_from(peer).map_err(refused)?;
            }
        }
    }
    let live: Vec<_> = machines.iter().map(|machine| machine.live(keys)).collect();
    if live.windows(2).any(|pair| pair[0] != pair[1]) { Err("diverged") } else { Ok(live[0].clone()) }
}

pub fn set(draft: &mut Draft, key: u8, value: &str) -> Result<(), Fault> {
    draft.set(&[key], Bytes::copy_from_slice(value.as_bytes()), Ttl::Set(Deadline::Never))
}

/// The row of a key.
pub fn row(key: u8) -> Bytes {
    RowKey::head(REGION.db, &[key])
}

/// A replica of one region on a disk.
pub fn open(store: &Arc<MemoryStore>, fresh: u64) -> Replica {
    open_as(store, fresh, false)
}

fn open_as(store: &Arc<MemoryStore>, fresh: u64, returning: bool) -> Replica {
    let options = Options {
        databases: 1,
        partitions: Partitions::new(1).unwrap(),
        cache_bytes: 1 << 16,
        sealer: Sealer { cluster: ClusterId(7), key: ContextKey::derive(b"secret") },
        hash_seed: 1,
        fresh_actor: ActorId(fresh),
        returning,
        max_skew_ms: 500,
        sync: SyncPolicy::EverySec,
    };
    Replica::open(store.clone(), options).unwrap()
}
