//! A replica in memory: runs commands on rows in a map, and tells another what changed. For unit tests here and for the
//! comparison with Redis in `tests/differential`, which includes this file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use redynamo::base::glob;
use redynamo::base::id::{ActorId, ClusterId, Db, Partition, Region};
use redynamo::base::kind::Kind;
use redynamo::causality::context::{ContextKey, Sealer};
use redynamo::causality::{Cell, Clock, Dot, Hlc, Moment, RowChange};
use redynamo::commands::errors::DB_OUT_OF_RANGE;
use redynamo::commands::spec::{ClusterCall, Run};
use redynamo::commands::{Call, CommandError, Session, resolve};
use redynamo::model::look::{RowPage, kind_of_head};
use redynamo::model::{Draft, DraftContext, Fault, Heads, Look, RowKey, View, settle};
use redynamo::resp::{Reply, inline};

use super::testing::FakeHost;

/// How many databases there are.
const DATABASES: u8 = 16;

/// Rows of one database, its clock, and the last counter given.
#[derive(Default)]
struct Rows {
    cells: BTreeMap<Bytes, Arc<Cell>>,
    clock: Clock,
    counter: u64,
    draws: u64,
}

impl Heads for Rows {
    fn head(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault> {
        Ok(self.shown(row))
    }

    fn range(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        let names: Vec<Bytes> = self.cells.range(from.clone()..to.clone()).map(|(row, _)| row.clone()).collect();
        let next = names.get(limit).cloned();
        let rows = names.into_iter().take(limit).filter(|row| !RowKey::is_head(row));
        let shown = rows.map(|row| (row.clone(), self.shown(&row))).filter(|(_, cell)| !cell.is_empty());
        Ok((shown.collect(), next))
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn chance(&mut self) -> u64 {
        self.draws += 1;
        self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Rows {
    /// A row without what its head hides.
    fn shown(&self, row: &Bytes) -> Arc<Cell> {
        let mut cell = self.cells.get(row).cloned().unwrap_or_default();
        if let Some(head) = RowKey::head_of(row).filter(|head| head != row).and_then(|head| self.cells.get(&head))
            && let Some(hides) = head.hides()
        {
            Arc::make_mut(&mut cell).retain(|version| !hides.contains(version.dot));
        }
        cell
    }

    /// A door without locks: takes in a change of rows, heads before others, and counts their keys anew.
    fn take_in(&mut self, changes: &[(Bytes, RowChange)]) {
        let (heads, others): (Vec<_>, Vec<_>) = changes.iter().partition(|(row, _)| RowKey::is_head(row));
        let mut keys = BTreeSet::new();
        for (row, change) in heads.into_iter().chain(others) {
            let head = RowKey::head_of(row).expect("a row key");
            let hides = self.cells.get(&head).and_then(|head| head.hides().map(|hides| hides.into_owned()));
            let mut cell = Cell::clone(&self.shown(row));
            let before = cell.clone();
            cell.apply(&mut self.clock, hides.as_ref().filter(|_| head != *row), change);
            if head == *row && settle::fresh_clears(&before, &cell).next().is_some() {
                let mut local = settle::recount(&before, &cell);
                local.hidden = local.hidden.filter(|_| self.rows_of(&head).next().is_some());
                cell.set_local(Some(Box::new(local)));
            }
            if let Some((tag, _)) = RowKey::split(row) {
                let index = |cell: &Cell| settle::index_of(&head, tag, row, cell);
                index(&before).into_iter().for_each(|(row, _)| drop(self.cells.remove(&row)));
                index(&cell).into_iter().for_each(|(row, cell)| drop(self.cells.insert(row, Arc::new(cell))));
            }
            match cell.is_blank() {
                true => self.cells.remove(row),
                false => self.cells.insert(row.clone(), Arc::new(cell)),
            };
            keys.insert(head);
        }
        keys.into_iter().for_each(|head| self.count(head));
    }

    fn rows_of(&self, head: &Bytes) -> impl Iterator<Item = &Bytes> {
        self.cells
            .range(head.clone()..RowKey::after_key(head))
            .map(|(row, _)| row)
            .skip_while(|row| RowKey::is_head(row))
    }

    fn count(&mut self, head: Bytes) {
        let mut cell = Cell::clone(&self.shown(&head));
        let mut local = settle::recount(&cell, &cell);
        for row in self.rows_of(&head).cloned().collect::<Vec<_>>() {
            settle::count_row(&mut local, &row, &self.shown(&row), |_, _| 0);
        }
        cell.set_local(Some(Box::new(local)));
        match cell.is_blank() {
            true => self.cells.remove(&head),
            false => self.cells.insert(head, Arc::new(cell)),
        };
    }
}

/// A replica of everything.
pub struct Replica {
    /// Who gives its dots.
    pub actor: ActorId,
    /// Wall time in milliseconds.
    pub now: u64,
    /// The one connection.
    pub session: Session,
    /// The node, which has no rows of its own.
    host: FakeHost,
    /// What the other has not been told.
    untold: Vec<(Db, Bytes, RowChange)>,
    databases: BTreeMap<Db, Rows>,
    stamps: Hlc,
    sealer: Sealer,
}

impl Replica {
    /// An empty replica.
    pub fn new(actor: u64) -> Replica {
        Replica {
            actor: ActorId(actor),
            now: 1_000_000,
            session: Session::new(1, String::new(), String::new(), true),
            host: FakeHost::default(),
            untold: Vec::new(),
            databases: BTreeMap::new(),
            stamps: Hlc::default(),
            sealer: Sealer { cluster: ClusterId(1), key: ContextKey::derive(b"harness") },
        }
    }

    /// Runs a line as a person types it.
    pub fn run(&mut self, line: &str) -> Reply {
        self.call(&inline::split(line.as_bytes()).expect("balanced quotes"))
    }

    /// Runs a command.
    pub fn call(&mut self, args: &[Bytes]) -> Reply {
        self.answer(args).unwrap_or_else(CommandError::into_reply)
    }

    /// Tells `other` all that changed here since the last time.
    pub fn tell(&mut self, other: &mut Replica) {
        for (db, row, change) in std::mem::take(&mut self.untold) {
            other.databases.entry(db).or_default().take_in(&[(row, change)]);
        }
    }

    /// The cell of a key in the connection's database.
    pub fn cell(&mut self, key: &str) -> Arc<Cell> {
        let row = RowKey::head(self.session.db, key.as_bytes());
        self.rows(self.session.db).head(&row).unwrap_or_default()
    }

    /// All dots that the replica has seen of the connection's database.
    pub fn clock(&mut self) -> Clock {
        self.rows(self.session.db).clock.clone()
    }

    fn answer(&mut self, args: &[Bytes]) -> Result<Reply, CommandError> {
        let spec = resolve(args)?;
        let call = Call { spec, args };
        match spec.run {
            Run::Read(run) => self.view(self.session.db, |view| run(&call, view)),
            Run::Write(run) => self.edit(self.session.db, |draft| run(&call, draft)),
            Run::Cluster(run) => self.sweep(run(&call, &self.session)?),
            Run::Prefix(run) => {
                let (_, at) = run(&call)?;
                self.answer(&args[at..])
            }
            Run::Session(run) => run(&call, &mut self.session, &self.host),
            Run::Node(run) => run(&call, &self.session, &self.host),
            Run::Container => unreachable!("a container without a subcommand has a wrong number of arguments"),
        }
    }

    fn rows(&mut self, db: Db) -> &mut Rows {
        self.databases.entry(db).or_default()
    }

    fn view<T>(&mut self, db: Db, run: impl FnOnce(&mut View) -> T) -> T {
        let moment = Moment { now: self.now, stamp: self.stamps.last() };
        let rows = self.databases.entry(db).or_default();
        run(&mut View::new(rows, &self.sealer, db, moment))
    }

    fn edit<T>(&mut self, db: Db, run: impl FnOnce(&mut Draft) -> Result<T, CommandError>) -> Result<T, CommandError> {
        let moment = self.stamps.tick(self.now);
        let region = Region { db, partition: Partition(0) };
        let rows = self.databases.entry(db).or_default();
        let before = rows.counter;
        let context = DraftContext { region, moment, actor: self.actor, counter: before, forgot: 0 };
        let mut draft = Draft::new(rows, &self.sealer, context);
        let answer = run(&mut draft)?;
        let (changed, counter) = draft.finish();
        let changes: Vec<_> = changed.iter().map(|row| row.change()).collect();
        assert_all_named(self.actor, before..counter, changes.iter());
        rows.counter = counter;
        let mut told = Vec::new();
        for row in changed {
            let mut twin = Cell::clone(&row.before);
            twin.apply(&mut Clock::new(), None, &row.change());
            assert_eq!(twin.versions(), row.after.versions(), "a change says what became of its row");
            told.push((row.row.clone(), row.change()));
        }
        rows.take_in(&told);
        self.untold.extend(told.into_iter().map(|(row, change)| (db, row, change)));
        Ok(answer)
    }

    fn sweep(&mut self, asked: ClusterCall) -> Result<Reply, CommandError> {
        let db = self.session.db;
        Ok(match asked {
            ClusterCall::Scan { cursor, pattern, kind, count } => self.scan(cursor, pattern, kind, count),
            ClusterCall::Keys(pattern) => {
                let keys = self.keys(db).into_iter().filter(|(_, key)| fits(&pattern, key));
                Reply::array(keys.map(|(_, key)| Reply::Bulk(key)))
            }
            ClusterCall::DbSize => Reply::Int(self.keys(db).len() as i64),
            ClusterCall::RandomKey => Reply::bulk_or_nil(self.keys(db).pop().map(|(_, key)| key)),
            ClusterCall::Flush(which) => self.flush(which)?,
            ClusterCall::CopyTo { source, destination, db: to, replace } => {
                Reply::Int(self.copy(&source, to, &destination, replace)?.into())
            }
            ClusterCall::Move { key, db: to } => {
                let copied = self.copy(&key, to, &key, false)?;
                if copied {
                    self.edit(db, |draft| Ok(draft.remove(&key)?))?;
                }
                Reply::Int(copied.into())
            }
            ClusterCall::Wait { .. } => Reply::Int(0),
            ClusterCall::WaitAof { .. } => Reply::array([Reply::Int(0), Reply::Int(0)]),
            ClusterCall::CountInSlot(_) | ClusterCall::KeysInSlot { .. } => {
                return Err("ERR there are no slots here".into());
            }
            ClusterCall::Watch(_) => Reply::ok(),
            ClusterCall::Listening(asked) => asked.combine(Vec::new()),
            ClusterCall::Where(_) => return Err("ERR there is no ring here".into()),
        })
    }

    /// Token and name of every key that is there, by token.
    fn keys(&mut self, db: Db) -> Vec<(u64, Bytes)> {
        let now = self.now;
        let heads = self.rows(db).cells.iter().filter(|(row, _)| RowKey::is_head(row));
        let there = heads.filter(|(_, cell)| kind_of_head(cell, now).is_some());
        let mut keys: Vec<_> = there
            .filter_map(|(row, _)| RowKey::decode(row.clone()).ok())
            .map(|parts| (parts.token.raw(), parts.key))
            .collect();
        keys.sort();
        keys
    }

    fn scan(&mut self, cursor: u64, pattern: Option<Bytes>, kind: Option<Bytes>, count: u64) -> Reply {
        let mut ahead = self.keys(self.session.db).into_iter().filter(|(token, _)| *token >= cursor).peekable();
        let page: Vec<_> = ahead.by_ref().take(count as usize).collect();
        let next = ahead.peek().map_or(0, |(token, _)| *token);
        let (db, now) = (self.session.db, self.now);
        let matching = page.into_iter().map(|(_, key)| key).filter(|key| {
            let head = self.databases.get(&db).and_then(|rows| rows.cells.get(&RowKey::head(db, key)));
            let is = |kind: &[u8]| head.is_some_and(|head| kind_of_head(head, now) == Kind::named(kind));
            kind.as_deref().is_none_or(is) && pattern.as_deref().is_none_or(|pattern| fits(pattern, key))
        });
        Reply::array([Reply::bulk(next.to_string()), Reply::array(matching.map(Reply::Bulk))])
    }

    fn flush(&mut self, which: Option<Db>) -> Result<Reply, CommandError> {
        let databases: Vec<Db> = which.map_or_else(|| self.databases.keys().copied().collect(), |db| vec![db]);
        for db in databases {
            let keys = self.keys(db);
            self.edit(db, |draft| Ok(keys.iter().try_for_each(|(_, key)| draft.remove(key).map(drop))?))?;
        }
        Ok(Reply::ok())
    }

    fn copy(&mut self, key: &[u8], to: Db, name: &[u8], replace: bool) -> Result<bool, CommandError> {
        if to.0 >= DATABASES {
            return Err(DB_OUT_OF_RANGE.into());
        }
        let db = self.session.db;
        let holds = self.view(db, |view| view.holds(key))?;
        if holds.kind().is_none() {
            return Ok(false);
        }
        let (image, mut parcels) = (self.view(db, |view| view.image(key))?, Vec::new());
        let mut from = Some(Bytes::new());
        while let Some(first) = from {
            let (page, next) = self.view(db, |view| view.parcels(key, &first))?;
            parcels.extend(page);
            from = next;
        }
        self.edit(to, |draft| {
            if !replace && draft.exists(name)? {
                return Ok(false);
            }
            draft.remove(name)?;
            if let Some(image) = &image {
                draft.put_image(name, image)?;
            }
            draft.end_at(name, holds.text, holds.ends)?;
            draft.put_parcels(name, parcels)?;
            Ok(true)
        })
    }
}

/// Redis asks no key whether `*` fits it, which the empty one would deny.
fn fits(pattern: &[u8], key: &[u8]) -> bool {
    glob::is_everything(pattern) || glob::matches(pattern, key)
}

/// Clocks stay without gaps only if every dot that was given is named by a change.
fn assert_all_named<'a>(
    actor: ActorId,
    given: std::ops::Range<u64>,
    changes: impl Iterator<Item = &'a RowChange> + Clone,
) {
    for counter in given.start + 1..=given.end {
        let dot = Dot::new(actor, counter);
        let named = |change: &RowChange| {
            change.new.iter().any(|version| version.dot == dot) || change.superseded.contains(&dot)
        };
        assert!(changes.clone().any(named), "{dot} was given and is in no change");
    }
}
