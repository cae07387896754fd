//! Commands that need keys of several regions, or databases, at one place: RENAME, COPY, MOVE, MSETNX, LCS, BITOP,
//! PFMERGE, and those of several sets.
//!
//! Each step is a command of one key at that key's coordinator, so each key is exact and each step is acknowledged as
//! any write is. Together they are not atomic: what is copied is there before its source goes, and the source goes by the
//! dots that were read, so that a write which came in between stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::parcels::{self, Read, internal, read_of};
use super::{Coordinator, Finished, Task, arguments};
use crate::base::id::Db;
use crate::base::kind::Kind;
use crate::causality::expiry::Deadline;
use crate::causality::{Cell, Clock, Dot, Moment, Payload, Stamp, Value, Version};
use crate::commands::errors::{NO_SUCH_KEY, SYNTAX, WRONG_TYPE};
use crate::commands::events::Classes;
use crate::commands::set::{Operation, combine};
use crate::commands::spec::{Flags, Run};
use crate::commands::{Call, CommandError, Spec, bitmap, hyperloglog};
use crate::model::look::{Parcel, Parcels, RowPage};
use crate::model::{Fault, Heads, Image, RowKey, View, settle};
use crate::resp::Reply;

impl Coordinator {
    pub(super) async fn gather(self: &Arc<Self>, task: Task) -> Finished {
        let done = match task.spec.name {
            "RENAME" => self.rename(&task, false).await,
            "RENAMENX" => self.rename(&task, true).await,
            "MSETNX" => self.set_all_if_none(&task).await,
            "SMOVE" => self.move_member(&task).await,
            "SINTERSTORE" => self.store_combined(&task, Operation::Inter).await,
            "SUNIONSTORE" => self.store_combined(&task, Operation::Union).await,
            "SDIFFSTORE" => self.store_combined(&task, Operation::Diff).await,
            "BITOP" => self.bit_operation(&task).await,
            "PFMERGE" => self.merge_counts(&task).await,
            _ if task.spec.flags.has(Flags::READONLY) => self.read_gathered(&task).await,
            name => Err(Finished::not_done(format!("{name} needs all its keys in one slot"))),
        };
        done.unwrap_or_else(|failed| failed)
    }

    async fn rename(self: &Arc<Self>, task: &Task, only_new: bool) -> Result<Finished, Finished> {
        let (source, target) = (arg(task, 1), arg(task, 2));
        let Some(read) = self.read_image(task, task.db, &source).await? else {
            return Ok(Reply::error(NO_SUCH_KEY).into());
        };
        let put = self.put_all(task, &source, task.db, &target, &read, only_new).await?;
        if put.reply == Reply::Int(0) {
            return Ok(put);
        }
        self.remove_read(task, &source, &read).await?;
        self.notify_one(task.db, Classes::GENERIC, "rename_from", &source);
        self.notify_one(task.db, Classes::GENERIC, "rename_to", &target);
        Ok(Finished { reply: if only_new { Reply::Int(1) } else { Reply::ok() }, wrote: put.wrote })
    }

    /// Copies a key, within a database or to another one.
    pub async fn copy(
        self: &Arc<Self>,
        task: &Task,
        source: &Bytes,
        target: &Bytes,
        db: Db,
        replace: bool,
    ) -> Finished {
        let copied = async {
            let Some(read) = self.read_image(task, task.db, source).await? else { return Ok(Reply::Int(0).into()) };
            let put = self.put_all(task, source, db, target, &read, !replace).await?;
            if put.reply == Reply::Int(1) {
                self.notify_one(db, Classes::GENERIC, "copy_to", target);
            }
            Ok(put)
        };
        copied.await.unwrap_or_else(|failed| failed)
    }

    /// Moves a key to another database, unless it is there already.
    pub async fn move_key(self: &Arc<Self>, task: &Task, key: &Bytes, db: Db) -> Finished {
        let moved = async {
            let Some(read) = self.read_image(task, task.db, key).await? else { return Ok(Reply::Int(0).into()) };
            let put = self.put_all(task, key, db, key, &read, true).await?;
            if put.reply == Reply::Int(1) {
                self.remove_read(task, key, &read).await?;
                self.notify_one(task.db, Classes::GENERIC, "move_from", key);
                self.notify_one(db, Classes::GENERIC, "move_to", key);
            }
            Ok(put)
        };
        moved.await.unwrap_or_else(|failed| failed)
    }

    /// MSETNX: looks at all keys first, then sets them. Exact only within one slot.
    async fn set_all_if_none(self: &Arc<Self>, task: &Task) -> Result<Finished, Finished> {
        for key in self.keys_of(task) {
            if self.read_image(task, task.db, key).await?.is_some() {
                return Ok(Reply::Int(0).into());
            }
        }
        let set = known("MSET")?;
        let done = self.run_boxed(Task { spec: set, ..task.clone() }).await;
        Ok(if done.reply.is_error() { done } else { Finished { reply: Reply::Int(1), wrote: done.wrote } })
    }

    /// SMOVE: there first, then gone here. Not at once.
    async fn move_member(self: &Arc<Self>, task: &Task) -> Result<Finished, Finished> {
        let (source, target, member) = (arg(task, 1), arg(task, 2), arg(task, 3));
        let there = self.plain(task, "SISMEMBER", [source.clone(), member.clone()]).await?;
        // The other key must be a set as well, or nothing; unless there is nothing to move from.
        if self.read_image(task, task.db, &source).await?.is_none() {
            return Ok(Reply::Int(0).into());
        }
        self.plain(task, "SCARD", [target.clone()]).await?;
        if there.reply == Reply::Int(0) {
            return Ok(there);
        }
        self.plain(task, "SADD", [target, member.clone()]).await?;
        let removed = self.plain(task, "SREM", [source, member]).await;
        let removed =
            removed.map_err(|_| Finished::unknown("the member is in its new set and may still be in the old"))?;
        Ok(Finished { reply: Reply::Int(1), wrote: removed.wrote })
    }

    /// SINTERSTORE and kin: what is read at several places is written at one, in place of what is there.
    async fn store_combined(self: &Arc<Self>, task: &Task, operation: Operation) -> Result<Finished, Finished> {
        let keys = task.args.get(2..).unwrap_or_default();
        let mut rows = self.gather_rows(task, keys.iter()).await?;
        let elements = self.over(&mut rows, task, |view| combine(view, keys, operation, u64::MAX));
        let elements = elements.map_err(|error| Finished::reply(error.into_reply()))?;
        let parcels = elements.into_iter().map(|element| {
            let image = Image { winner: (Bytes::new(), Deadline::Never), siblings: Vec::new() };
            parcels::encode(&Parcel { tag: Kind::Set.tag(), name: element.name, image })
        });
        let head = [arg(task, 1), "1".into(), "-".into(), "0".into()];
        self.step(task, task.db, ".FILL", head.into_iter().chain(parcels).collect()).await
    }

    /// Runs a command that changes nothing over what all its keys hold.
    async fn read_gathered(self: &Arc<Self>, task: &Task) -> Result<Finished, Finished> {
        let mut rows = self.gather_rows(task, self.keys_of(task)).await?;
        let Run::Read(command) = task.spec.run else { return Ok(Reply::error(SYNTAX).into()) };
        let call = Call { spec: task.spec, args: &task.args };
        let answer = self.over(&mut rows, task, |view| command(&call, view));
        Ok(answer.unwrap_or_else(|error| error.into_reply()).into())
    }

    fn over<T>(&self, rows: &mut Gathered, task: &Task, read: impl FnOnce(&mut View) -> T) -> T {
        let now = self.env.now_ms();
        let moment = Moment { now, stamp: Stamp::at(now) };
        read(&mut View::new(rows, self.replica.sealer(), task.db, moment))
    }

    /// All that some keys hold, as rows.
    async fn gather_rows(
        self: &Arc<Self>,
        task: &Task,
        keys: impl Iterator<Item = &Bytes>,
    ) -> Result<Gathered, Finished> {
        let mut rows = Gathered::default();
        for key in keys {
            let head = RowKey::head(task.db, key);
            let Some(read) = self.read_image(task, task.db, key).await? else { continue };
            let mut cell = read.image.as_ref().map(cell_of).unwrap_or_default();
            let (mut local, mut from) = (settle::recount(&cell, &cell), Some(Bytes::new()).filter(|_| read.more));
            while let Some(first) = from {
                let (page, next) = self.read_parcels(task, key, first).await?;
                for Parcel { tag, name, image } in page {
                    let (row, cell) = (RowKey::element(&head, tag, &name), cell_of(&image));
                    settle::count_row(&mut local, &row, &cell, |_, _| 0);
                    rows.0.insert(row, Arc::new(cell));
                }
                from = next;
            }
            cell.set_local(Some(Box::new(local)));
            rows.0.insert(head, Arc::new(cell));
        }
        Ok(rows)
    }

    async fn read_parcels(self: &Arc<Self>, task: &Task, key: &Bytes, from: Bytes) -> Result<Parcels, Finished> {
        let done = self.step(task, task.db, ".PARCELS", vec![key.clone(), from]).await?;
        let odd = || Finished::not_done("rows of a collection were expected");
        let Reply::Array(parts) = done.reply else { return Err(odd()) };
        let (mut parts, mut page) = (parts.into_iter(), Vec::new());
        let next = match parts.next() {
            Some(Reply::Bulk(next)) => Some(next),
            _ => None,
        };
        for part in parts {
            let Reply::Bulk(raw) = part else { return Err(odd()) };
            page.push(parcels::decode(&raw).map_err(|_| odd())?);
        }
        Ok((page, next))
    }

    /// Writes all that was read of `source` under another name, its collections a page at a time.
    async fn put_all(
        self: &Arc<Self>,
        task: &Task,
        source: &Bytes,
        db: Db,
        target: &Bytes,
        read: &Read,
        only_new: bool,
    ) -> Result<Finished, Finished> {
        let put = self.put_image(task, db, target, read.image.as_ref(), only_new).await?;
        if put.reply == Reply::Int(0) {
            return Ok(put);
        }
        let mut from = Some(Bytes::new()).filter(|_| read.more);
        let mut ends = parcels::text_of(read.ends);
        while let Some(first) = from {
            let (page, next) = self.read_parcels(task, source, first).await?;
            let text = if read.image.is_some() { "1" } else { "0" };
            let head = [target.clone(), "0".into(), std::mem::replace(&mut ends, "-".into()), text.into()];
            let args = head.into_iter().chain(page.iter().map(parcels::encode)).collect();
            let filled = self.step(task, db, ".FILL", args).await;
            filled.map_err(|_| Finished::unknown("a part of it is there under its new name"))?;
            from = next;
        }
        Ok(put)
    }

    /// BITOP: reads its sources, then sets or removes its target.
    async fn bit_operation(self: &Arc<Self>, task: &Task) -> Result<Finished, Finished> {
        let call = Call { spec: task.spec, args: &task.args };
        let operation = bitmap::operation(&call).map_err(refused)?;
        let mut texts = Vec::new();
        for key in call.cursor(3).rest() {
            let read = self.read_image(task, task.db, key).await?;
            if read.as_ref().is_some_and(|read| read.more) {
                return Err(Reply::error(WRONG_TYPE).into());
            }
            texts.push(read.and_then(|read| read.image).map(|image| image.winner.0).unwrap_or_default());
        }
        let (target, out) = (arg(task, 2), operation.of(&texts));
        let (len, name) = (out.len(), if out.is_empty() { "DEL" } else { "SET" });
        let words = [Bytes::from_static(name.as_bytes()), target].into_iter();
        let args = arguments(words.chain((len > 0).then(|| Bytes::from(out))));
        let done = self.run_boxed(Task { spec: known(name)?, args, ..task.clone() }).await;
        Ok(if done.reply.is_error() { done } else { Finished { reply: Reply::Int(len as i64), wrote: done.wrote } })
    }

    /// PFMERGE: reads its sources, then has its target note what they have.
    async fn merge_counts(self: &Arc<Self>, task: &Task) -> Result<Finished, Finished> {
        let sources = task.args.get(2..).unwrap_or_default();
        let mut rows = self.gather_rows(task, sources.iter()).await?;
        let merged = self.over(&mut rows, task, |view| hyperloglog::merged(sources, view)).map_err(refused)?;
        let done = self.step(task, task.db, ".PFMERGE", vec![arg(task, 1), merged]).await?;
        self.notify_one(task.db, Classes::STRING, "pfadd", &arg(task, 1));
        Ok(done)
    }

    async fn read_image(self: &Arc<Self>, task: &Task, db: Db, key: &Bytes) -> Result<Option<Read>, Finished> {
        let done = self.step(task, db, ".IMAGE", vec![key.clone()]).await?;
        match done.reply {
            Reply::Nil => Ok(None),
            Reply::Array(parts) => {
                read_of(parts).map(Some).ok_or_else(|| Finished::not_done("an image without a value"))
            }
            _ => Err(Finished::not_done("an image was expected")),
        }
    }

    async fn put_image(
        self: &Arc<Self>,
        task: &Task,
        db: Db,
        key: &Bytes,
        image: Option<&Image>,
        only_new: bool,
    ) -> Result<Finished, Finished> {
        let mut args = vec![key.clone(), Bytes::from_static(if only_new { b"1" } else { b"0" })];
        for (data, deadline) in image.iter().flat_map(|image| [&image.winner].into_iter().chain(&image.siblings)) {
            args.push(data.clone());
            args.push(parcels::text_of(*deadline));
        }
        self.step(task, db, ".PUT", args).await
    }

    async fn remove_read(self: &Arc<Self>, task: &Task, key: &Bytes, read: &Read) -> Result<Finished, Finished> {
        let removed = self.step(task, task.db, ".REMOVE", vec![key.clone(), read.context.clone()]).await;
        removed.map_err(|_| Finished::unknown("it is there under its new name and may still be under the old one"))
    }

    /// One of a client's commands, likewise.
    async fn plain<const N: usize>(
        self: &Arc<Self>,
        task: &Task,
        name: &'static str,
        args: [Bytes; N],
    ) -> Result<Finished, Finished> {
        let spec = crate::commands::find(name.as_bytes()).ok_or_else(|| Finished::not_done("a command is missing"))?;
        let args = arguments([Bytes::from_static(name.as_bytes())].into_iter().chain(args));
        let done = self.run_boxed(Task { spec, args, db: task.db, quorum: task.quorum, hops: 0 }).await;
        if done.reply.is_error() { Err(done) } else { Ok(done) }
    }

    /// One internal command at its key's coordinator; an error reply ends the whole.
    async fn step(
        self: &Arc<Self>,
        task: &Task,
        db: Db,
        name: &'static str,
        args: Vec<Bytes>,
    ) -> Result<Finished, Finished> {
        let spec = internal(name.as_bytes()).ok_or_else(|| Finished::not_done("an internal command is missing"))?;
        let args = arguments([Bytes::from_static(name.as_bytes())].into_iter().chain(args));
        let done = self.run_boxed(Task { spec, args, db, quorum: task.quorum, hops: 0 }).await;
        if done.reply.is_error() { Err(done) } else { Ok(done) }
    }

    async fn run_boxed(self: &Arc<Self>, task: Task) -> Finished {
        Box::pin(self.run(task)).await
    }
}

/// What keys hold as rows for a view.
#[derive(Default)]
struct Gathered(BTreeMap<Bytes, Arc<Cell>>);

impl Heads for Gathered {
    fn head(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault> {
        Ok(self.0.get(row).cloned().unwrap_or_default())
    }

    fn range(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        let within = self.0.range(from.clone()..to.clone());
        let rows: Vec<_> = within.map(|(row, cell)| (row.clone(), cell.clone())).take(limit + 1).collect();
        let next = rows.get(limit).map(|(row, _)| row.clone());
        Ok((rows.into_iter().take(limit).filter(|(row, _)| !RowKey::is_head(row)).collect(), next))
    }

    fn clock(&self) -> Clock {
        Clock::new()
    }
}

/// A cell that shows an image: the winner has the latest dot.
fn cell_of(image: &Image) -> Cell {
    let values = image.siblings.iter().chain([&image.winner]);
    Cell::of(values.zip(1..).map(|((data, deadline), counter)| {
        let value = Value { deadline: deadline.ms(), ..Value::plain(data.clone()) };
        let dot = Dot::new(crate::base::id::ActorId(0), counter);
        Version { dot, stamp: Stamp::default(), payload: Payload::Value(value) }
    }))
}

fn refused(error: CommandError) -> Finished {
    error.into_reply().into()
}

fn known(name: &'static str) -> Result<&'static Spec, Finished> {
    crate::commands::find(name.as_bytes()).ok_or_else(|| Finished::not_done(format!("{name} is missing")))
}

fn arg(task: &Task, at: usize) -> Bytes {
    task.args.get(at).cloned().unwrap_or_default()
}
