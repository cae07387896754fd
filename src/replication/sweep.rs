//! What is asked of many partitions: SCAN, KEYS, DBSIZE, RANDOMKEY, FLUSHDB, FLUSHALL, and where a key lies.
//!
//! Each partition is answered for by its coordinator. A scan's cursor is a token, so it needs no state anywhere, and a key
//! that is there throughout is returned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::telling::{Gathered, Under};
use super::{Coordinator, Finished, Task};
use crate::base::glob;
use crate::base::id::{Db, NodeId, Partition, Region, Term};
use crate::base::kind::Kind;
use crate::cluster::ClusterView;
use crate::commands::errors::DB_OUT_OF_RANGE;
use crate::commands::spec::ClusterCall;
use crate::env::blocking;
use crate::model::RowKey;
use crate::peer::{Request, Response};
use crate::replica::Tally;
use crate::resp::Reply;
use crate::ring::{Role, Slot, Token};

/// Keys that one step of a scan of everything asks for.
const PAGE: u32 = 10_000;

/// Which partitions a sweep goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All: a client of the plain face asks one node.
    Everywhere,
    /// Those of the slots that this node answers for: a client of the cluster face asks each node and adds up.
    OwnSlots,
}

/// A page of keys, ascending by token, and where to go on.
pub type Page = (Vec<(u64, Bytes)>, Option<u64>);

/// Whether a sweep goes over a partition: no partition has slots of two nodes.
fn is_asked(scope: Scope, view: &ClusterView, partition: Partition) -> bool {
    let first = view.ring.partitions().slots(partition).start;
    scope == Scope::Everywhere || view.slots.node_of(first) == Some(view.me)
}

impl Coordinator {
    /// Runs what concerns many partitions or nodes. `wrote` is the connection's last write.
    pub async fn sweep(
        self: &Arc<Self>,
        call: ClusterCall,
        task: Task,
        wrote: Option<(Region, crate::causality::Dot)>,
    ) -> Finished {
        self.sweep_in(Scope::Everywhere, call, task, wrote).await
    }

    /// The same over the partitions of a scope.
    pub async fn sweep_in(
        self: &Arc<Self>,
        scope: Scope,
        call: ClusterCall,
        task: Task,
        wrote: Option<(Region, crate::causality::Dot)>,
    ) -> Finished {
        let db = task.db;
        if task.quorum.report {
            return Reply::error("ERR REPORT is for commands whose keys lie in one partition").into();
        }
        if let ClusterCall::CopyTo { db, .. } | ClusterCall::Move { db, .. } = call
            && u16::from(db.0) >= self.databases
        {
            return Reply::error(DB_OUT_OF_RANGE).into();
        }
        let reply = match call {
            ClusterCall::Scan { cursor, pattern, kind, count } => {
                self.scan(scope, db, cursor, pattern, kind, count).await
            }
            ClusterCall::Keys(pattern) => self.keys(scope, db, &pattern).await,
            ClusterCall::DbSize => self.tally_of(scope, db).await.map(|tally| Reply::Int(tally.keys as i64)),
            ClusterCall::RandomKey => self.random_key(scope, db).await,
            ClusterCall::Flush(which) => self.flush(scope, which).await,
            // Whoever serves the connection looks, and keeps what is seen.
            ClusterCall::Watch(_) => Ok(Reply::ok()),
            ClusterCall::Listening(asked) if scope == Scope::OwnSlots => {
                Ok(asked.combine(vec![self.listening_here(&asked)]))
            }
            ClusterCall::Listening(asked) => Ok(self.listening(&asked).await),
            ClusterCall::CountInSlot(slot) => {
                self.keys_in_slot(db, slot, usize::MAX).await.map(|keys| Reply::Int(keys.len() as i64))
            }
            ClusterCall::KeysInSlot { slot, count } => {
                self.keys_in_slot(db, slot, count).await.map(|keys| Reply::array(keys.into_iter().map(Reply::Bulk)))
            }
            ClusterCall::Where(key) => Ok(self.where_is(db, &key).await),
            ClusterCall::CopyTo { source, destination, db, replace } => {
                return self.copy(&task, &source, &destination, db, replace).await;
            }
            ClusterCall::Move { key, db } => return self.move_key(&task, &key, db).await,
            ClusterCall::Wait { replicas, timeout_ms } => Ok(self.wait(wrote, replicas, timeout_ms).await),
            ClusterCall::WaitAof { local, replicas, timeout_ms } => {
                Ok(self.wait_aof(wrote, local, replicas, timeout_ms).await)
            }
        };
        reply.unwrap_or_else(|why| Finished::not_done(why).reply).into()
    }

    async fn scan(
        self: &Arc<Self>,
        scope: Scope,
        db: Db,
        cursor: u64,
        pattern: Option<Bytes>,
        kind: Option<Bytes>,
        count: u64,
    ) -> Result<Reply, String> {
        let of = kind.as_deref().map(Kind::named);
        if of == Some(None) {
            // No key is of a kind that there is not.
            return Ok(Reply::Array(vec![Reply::bulk("0"), Reply::Array(Vec::new())]));
        }
        let of = of.flatten();
        let pattern = pattern.filter(|pattern| !glob::is_everything(pattern));
        let (mut from, mut left, mut found) = (Some(cursor), count.clamp(1, u64::from(PAGE)) as u32, Vec::new());
        while let Some(token) = from.filter(|_| left > 0) {
            let (keys, next) = self.page(scope, db, token, (left, of)).await?;
            left = left.saturating_sub(keys.len().max(1) as u32);
            // Empty partitions cost little: pass over them without counting.
            left += u32::from(keys.is_empty());
            found.extend(keys.into_iter().map(|(_, key)| key));
            from = next;
        }
        let keys = found
            .into_iter()
            .filter(|key| pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key)))
            .map(Reply::bulk);
        let cursor = from.unwrap_or(0).to_string();
        Ok(Reply::Array(vec![Reply::bulk(cursor), Reply::Array(keys.collect())]))
    }

    async fn keys(self: &Arc<Self>, scope: Scope, db: Db, pattern: &Bytes) -> Result<Reply, String> {
        let all = glob::is_everything(pattern);
        let (mut from, mut found) = (Some(0), Vec::new());
        while let Some(token) = from {
            let (keys, next) = self.page(scope, db, token, (PAGE, None)).await?;
            found.extend(keys.into_iter().map(|(_, key)| key).filter(|key| all || glob::matches(pattern, key)));
            from = next;
        }
        Ok(Reply::Array(found.into_iter().map(Reply::bulk).collect()))
    }

    /// Some visible keys, or those of a kind, from a token on, as the coordinator of its partition has them; about so many.
    async fn page(
        self: &Arc<Self>,
        scope: Scope,
        db: Db,
        token: u64,
        (count, of): (u32, Option<Kind>),
    ) -> Result<Page, String> {
        let partitions = self.replica.partitions();
        let Some(first) = Token::from_raw(token) else { return Ok((Vec::new(), None)) };
        let partition = partitions.of_token(first);
        let region = Region { db, partition };
        let (me, node, asked) = {
            let view = self.view.load();
            (view.me, view.coordinator(partition), is_asked(scope, &view, partition))
        };
        let node = node.ok_or("a partition has no reachable replica")?;
        let (keys, next) = if !asked {
            (Vec::new(), None)
        } else if node == me {
            self.page_here(region, token, count, of).await?
        } else {
            match timeout(self.patience * 5, self.env.call(node, &Request::Scan { region, from: token, count, of }))
                .await
            {
                Ok(Ok(Response::Keys { keys, next })) => (keys, next),
                _ => return Err(format!("node {node} did not answer a scan")),
            }
        };
        let next_partition = || partitions.tokens(partition).and_then(|tokens| tokens.end().next()).map(Token::raw);
        Ok((keys, next.or_else(next_partition)))
    }

    /// The same from this node's rows; the next token only within the region.
    pub async fn page_here(
        self: &Arc<Self>,
        region: Region,
        token: u64,
        count: u32,
        of: Option<Kind>,
    ) -> Result<Page, String> {
        self.catch_up(&[region], false).await?;
        let now = self.env.now_ms();
        if self.replica.tally(region).keys == 0 {
            return Ok((Vec::new(), None));
        }
        // A key that was acknowledged must be seen, and scans read the store.
        let replica = self.replica.clone();
        replica.committer().wait(replica.committer().last()).await.map_err(|error| error.to_string())?;
        let scanned = blocking(&*self.env, move || replica.scan(region, token, count as usize, now, of)).await;
        let (keys, next) = scanned.ok_or("this node is stopping")?.map_err(|fault| fault.to_string())?;
        Ok((keys.into_iter().map(|scanned| (scanned.token.raw(), scanned.key)).collect(), next))
    }

    /// Keys of a slot, at most `count`.
    async fn keys_in_slot(self: &Arc<Self>, db: Db, slot: Slot, count: usize) -> Result<Vec<Bytes>, String> {
        let last = Token::last_of(slot).raw();
        let (mut from, mut found) = (Some(Token::first_of(slot).raw()), Vec::new());
        while let Some(token) = from.filter(|token| *token <= last && found.len() < count) {
            let (keys, next) = self.page(Scope::Everywhere, db, token, (PAGE, None)).await?;
            found.extend(keys.into_iter().take_while(|(token, _)| *token <= last).map(|(_, key)| key));
            from = next;
        }
        found.truncate(count);
        Ok(found)
    }

    async fn random_key(self: &Arc<Self>, scope: Scope, db: Db) -> Result<Reply, String> {
        const TRIES: u64 = 64;
        let start = self.env.random() & Token::MAX.raw();
        let (mut from, mut wrapped) = (start, false);
        loop {
            let (keys, next) = self.page(scope, db, from, (TRIES as u32, None)).await?;
            if !keys.is_empty() {
                let at = (self.env.random() % keys.len() as u64) as usize;
                return Ok(Reply::bulk_or_nil(keys.into_iter().nth(at).map(|(_, key)| key)));
            }
            match next {
                Some(_) if wrapped && from >= start => return Ok(Reply::Nil),
                Some(token) => from = token,
                None if wrapped => return Ok(Reply::Nil),
                None => (from, wrapped) = (0, true),
            }
        }
    }

    /// Local facts of a database, summed over all partitions.
    pub async fn db_tally(self: &Arc<Self>, db: Db) -> Result<Tally, String> {
        self.tally_of(Scope::Everywhere, db).await
    }

    async fn tally_of(self: &Arc<Self>, scope: Scope, db: Db) -> Result<Tally, String> {
        let mut sum = Tally::default();
        let asked = self.by_coordinator(scope, [db])?.into_iter().map(|(node, regions)| async move {
            if node == self.view.load().me {
                return self.tally_here(&regions).await.ok();
            }
            match timeout(self.patience, self.env.call(node, &Request::Tally(regions))).await {
                Ok(Ok(Response::Tally(tally))) => Some(tally),
                _ => None,
            }
        });
        for tally in join_all(asked).await {
            sum.add(&tally.ok_or("a node did not answer")?);
        }
        Ok(sum)
    }

    /// Sum of this node's facts on some regions.
    pub async fn tally_here(self: &Arc<Self>, regions: &[Region]) -> Result<Tally, String> {
        self.replica.check_sound().map_err(|fault| fault.to_string())?;
        self.catch_up(regions, false).await?;
        let known = regions.iter().filter(|region| self.replica.knows(**region));
        Ok(known.fold(Tally::default(), |mut sum, region| {
            sum.add(&self.replica.tally(*region));
            sum
        }))
    }

    async fn flush(self: &Arc<Self>, scope: Scope, which: Option<Db>) -> Result<Reply, String> {
        let dbs: Vec<Db> = match which {
            Some(db) => vec![db],
            None => (0..self.databases).map(|db| Db(db as u8)).collect(),
        };
        let asked = self.by_coordinator(scope, dbs)?.into_iter().map(|(node, regions)| {
            let this = self.clone();
            async move {
                if node == this.view.load().me {
                    return this.clear_here(&regions).await;
                }
                match timeout(this.patience * 5, this.env.call(node, &Request::Clear(regions))).await {
                    Ok(Ok(Response::Done)) => Ok(()),
                    Ok(Ok(Response::Refused(why))) => Err(why),
                    _ => Err(format!("node {node} did not answer: some keys may be left")),
                }
            }
        });
        // What one node did not do, another has done.
        let done: Result<(), String> = join_all(asked).await.into_iter().collect();
        Ok(done.map_or_else(|why| Finished::unknown(why).reply, |()| Reply::ok()))
    }

    /// Clears regions as their coordinator, acknowledged as a write is.
    pub async fn clear_here(self: &Arc<Self>, regions: &[Region]) -> Result<(), String> {
        let known: Vec<Region> = regions.iter().copied().filter(|region| self.replica.knows(*region)).collect();
        let deadline = Instant::now() + self.patience * 5;
        let mut left = known;
        for tried in 0.. {
            self.catch_up(&left, true).await?;
            left = self.clear_once(&left, deadline).await?;
            if left.is_empty() {
                break;
            }
            // Somebody took over meanwhile, and may have written what this node had not seen.
            match Instant::now() < deadline {
                true => self.step_back(tried).await,
                false => return Err("another node coordinates these keys as well".into()),
            }
        }
        Ok(())
    }

    /// Clears regions that this node has caught up with; answers those of which it was deposed meanwhile.
    async fn clear_once(self: &Arc<Self>, regions: &[Region], deadline: Instant) -> Result<Vec<Region>, String> {
        let (mut clearing, mut empty, mut deposed) = (Vec::new(), Vec::new(), Vec::new());
        for region in regions {
            let (view, strict) = (self.view.load(), self.quorums.is_strict(region.db));
            let (seats, term) = (view.seats(region.partition), self.held(region.partition).map(|hold| hold.term));
            if strict && term.is_none() {
                deposed.push(*region);
                continue;
            }
            let tell = |delta| self.tell_as_seated(&seats, delta, Under { term, stand_ins_look: false }, false);
            let cleared = self.replica.clear(*region, tell).map_err(|fault| fault.to_string())?;
            match cleared {
                Some((ticket, mut telling)) => {
                    telling.commit_here(self, self.seat_here(&seats), ticket);
                    clearing.push((*region, telling));
                }
                None => empty.extend(term.filter(|_| strict).map(|term| (*region, term))),
            }
        }
        deposed.extend(self.not_surely_empty(&empty).await);
        for (region, mut telling) in clearing {
            let owners = self.view.load().ring.owner_count(region.partition);
            let need = usize::from(self.quorums.write_of(region.db)).clamp(1, owners.max(1));
            let strict = self.quorums.is_strict(region.db);
            match telling.gather(self, need, strict, deadline).await {
                Gathered::Enough => self.tell_rest(telling),
                Gathered::Doubted => {
                    telling.deposed().into_iter().for_each(|term| self.adopt(region.partition, term));
                    deposed.push(region);
                }
                Gathered::Short => {
                    let have = telling.have(strict);
                    return Err(format!("{have} of {need} replicas cleared {region} in time"));
                }
            }
        }
        Ok(deposed)
    }

    /// Those of regions that are empty here, and held in these terms, of which others do not confirm that nobody coordinates
    /// them in a later one: what was written there is not known here.
    async fn not_surely_empty(&self, empty: &[(Region, Term)]) -> Vec<Region> {
        let held = |(region, term): &(Region, Term)| {
            let others = self.others_to_hear(region.partition, self.quorums.write_of(region.db).into());
            (region.partition, *term, others)
        };
        let held: Vec<_> = empty.iter().map(held).collect();
        let outlived = self.outlived(&held).await;
        empty.iter().map(|(region, _)| *region).filter(|region| outlived.contains(&region.partition)).collect()
    }

    /// The regions of some databases, by who coordinates them.
    fn by_coordinator(
        &self,
        scope: Scope,
        dbs: impl IntoIterator<Item = Db>,
    ) -> Result<BTreeMap<NodeId, Vec<Region>>, String> {
        let view = self.view.load();
        let mut nodes: BTreeMap<NodeId, Vec<Region>> = BTreeMap::new();
        for db in dbs {
            for partition in view.ring.partitions().iter().filter(|at| is_asked(scope, &view, *at)) {
                let node = view.coordinator(partition).ok_or("a partition has no reachable replica")?;
                nodes.entry(node).or_default().push(Region { db, partition });
            }
        }
        Ok(nodes)
    }

    /// Everything about where a key lies: its preference list, who is live, and what each owner holds.
    async fn where_is(&self, db: Db, key: &Bytes) -> Reply {
        let region = self.region_of(db, key);
        let token = Token::of(key);
        let view = self.view.load_full();
        let coordinator = view.coordinator(region.partition);
        let nodes = view.ring.roles(region.partition).map(|(node, role)| {
            let view = view.clone();
            async move {
                let held = if role == Role::Owner { self.held_at(node, region, key).await } else { None };
                let standing = view.nodes.get(&node);
                let name = standing.map_or(String::new(), |standing| standing.member.name.clone());
                let addr = standing.map_or(String::new(), |standing| standing.member.client_addr());
                let zone = standing.map_or(String::new(), |standing| standing.member.zone.clone());
                Reply::map([
                    ("node", Reply::bulk(node.to_string())),
                    ("name", Reply::bulk(name)),
                    ("address", Reply::bulk(addr)),
                    ("zone", Reply::bulk(zone)),
                    ("role", Reply::bulk(if role == Role::Owner { "owner" } else { "stand-in" })),
                    ("live", Reply::Bool(view.is_live(node))),
                    ("coordinator", Reply::Bool(coordinator == Some(node))),
                    ("holds", held.map_or(Reply::Nil, |dots| Reply::array(dots.into_iter().map(Reply::bulk)))),
                ])
            }
        });
        let nodes = join_all(nodes).await;
        Reply::map([
            ("slot", Reply::Int(token.slot().number().into())),
            ("token", Reply::bulk(token.raw().to_string())),
            ("partition", Reply::Int(region.partition.0.into())),
            ("nodes", Reply::Array(nodes)),
        ])
    }

    /// Dots of a key's versions at a node; none if it does not answer.
    async fn held_at(&self, node: NodeId, region: Region, key: &Bytes) -> Option<Vec<String>> {
        let row = RowKey::head(region.db, key);
        if node == self.view.load().me {
            let cell = self.replica.cell(region, &row).ok()?;
            return Some(cell.dots().map(|dot| dot.to_string()).collect());
        }
        match timeout(self.patience, self.env.call(node, &Request::Row { region, row, dots: Vec::new() })).await {
            Ok(Ok(Response::Row(answer))) => {
                Some(answer.change.new.iter().map(|version| version.dot.to_string()).collect())
            }
            _ => None,
        }
    }

    async fn wait(
        self: &Arc<Self>,
        wrote: Option<(Region, crate::causality::Dot)>,
        replicas: i64,
        timeout_ms: u64,
    ) -> Reply {
        let want = usize::try_from(replicas).unwrap_or(0);
        let have = match wrote {
            Some((region, dot)) => {
                self.replicas_with(region, dot, want, Duration::from_millis(timeout_ms), false).await
            }
            // Nothing was written: every replica has all of it.
            None => self.view.load().live_peers(Partition(0)).len(),
        };
        Reply::Int(have as i64)
    }

    async fn wait_aof(
        self: &Arc<Self>,
        wrote: Option<(Region, crate::causality::Dot)>,
        local: i64,
        replicas: i64,
        timeout_ms: u64,
    ) -> Reply {
        let patience = if timeout_ms == 0 { self.patience * 10 } else { Duration::from_millis(timeout_ms) };
        let here = local > 0 && self.synced(Instant::now() + patience).await;
        let want = usize::try_from(replicas).unwrap_or(0);
        let others = match wrote {
            Some((region, dot)) => self.replicas_with(region, dot, want, Duration::from_millis(timeout_ms), true).await,
            None => self.view.load().live_peers(Partition(0)).len(),
        };
        Reply::Array(vec![Reply::Int(here.into()), Reply::Int(others as i64)])
    }
}
