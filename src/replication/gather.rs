//! Commands that need keys of several regions, or databases, at one place: RENAME, COPY, MOVE, MSETNX, LCS, BITOP, PFMERGE.
//!
//! Each step is a command of one key at that key's coordinator, so each key is exact and each step is acknowledged as
//! any write is. Together they are not atomic: what is copied is there before its source goes, and the source goes by the
//! dots that were read, so that a write which came in between stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Coordinator, Finished, Task, arguments, transaction};
use crate::base::id::Db;
use crate::base::num::parse_i64;
use crate::causality::expiry::Deadline;
use crate::causality::{Cell, Dot, Moment, Payload, Stamp, Value, Version};
use crate::commands::errors::{NO_SUCH_KEY, SYNTAX};
use crate::commands::events::Classes;
use crate::commands::spec::{Flags, Group, Keys, Run, Spec};
use crate::commands::{Answer, Call, CommandError, bitmap, hyperloglog};
use crate::model::{Draft, Fault, Heads, Image, RowKey, View};
use crate::resp::Reply;

/// Commands that only nodes send: no client can name them.
static INTERNAL: [Spec; 4] = [
    Spec::new(".IMAGE", "key", Group::Dynamo, Run::Read(image)).arity(2).keys(Keys::FIRST),
    Spec::new(".PUT", "key nx [value deadline ...]", Group::Dynamo, Run::Write(put)).arity(-5).keys(Keys::FIRST),
    Spec::new(".PFMERGE", "key value", Group::Dynamo, Run::Write(hyperloglog::merge_given)).arity(3).keys(Keys::FIRST),
    Spec::new(".REMOVE", "key context", Group::Dynamo, Run::Write(remove)).arity(3).keys(Keys::FIRST),
];

/// The internal command of this name.
pub fn internal(name: &[u8]) -> Option<&'static Spec> {
    INTERNAL.iter().chain(&transaction::INTERNAL).find(|spec| spec.name.as_bytes() == name)
}

/// An image and the context of having read it.
struct Read {
    context: Bytes,
    image: Image,
}

impl Coordinator {
    pub(super) async fn gather(self: &Arc<Self>, task: Task) -> Finished {
        let done = match task.spec.name {
            "RENAME" => self.rename(&task, false).await,
            "RENAMENX" => self.rename(&task, true).await,
            "MSETNX" => self.set_all_if_none(&task).await,
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
        let put = self.put_image(task, task.db, &target, &read.image, only_new).await?;
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
            let put = self.put_image(task, db, target, &read.image, !replace).await?;
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
            let put = self.put_image(task, db, key, &read.image, true).await?;
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

    /// BITOP: reads its sources, then sets or removes its target.
    async fn bit_operation(self: &Arc<Self>, task: &Task) -> Result<Finished, Finished> {
        let call = Call { spec: task.spec, args: &task.args };
        let operation = bitmap::operation(&call).map_err(refused)?;
        let mut texts = Vec::new();
        for key in call.cursor(3).rest() {
            texts.push(self.read_image(task, task.db, key).await?.map(|read| read.image.winner.0).unwrap_or_default());
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
        let mut cells = self.cells_of(task, sources.iter()).await?;
        let merged = hyperloglog::merged(sources, &mut self.view_of(&mut cells, task.db)).map_err(refused)?;
        let done = self.step(task, task.db, ".PFMERGE", vec![arg(task, 1), merged]).await?;
        self.notify_one(task.db, Classes::STRING, "pfadd", &arg(task, 1));
        Ok(done)
    }

    /// Runs a command that changes nothing over the images of all its keys.
    async fn read_gathered(self: &Arc<Self>, task: &Task) -> Result<Finished, Finished> {
        let Run::Read(command) = task.spec.run else { return Ok(Reply::error(SYNTAX).into()) };
        let mut cells = self.cells_of(task, self.keys_of(task)).await?;
        let answer = command(&Call { spec: task.spec, args: &task.args }, &mut self.view_of(&mut cells, task.db));
        Ok(answer.unwrap_or_else(|error| error.into_reply()).into())
    }

    async fn cells_of(self: &Arc<Self>, task: &Task, keys: impl Iterator<Item = &Bytes>) -> Result<Gathered, Finished> {
        let mut cells = Gathered::default();
        for key in keys {
            if let Some(read) = self.read_image(task, task.db, key).await? {
                cells.0.insert(RowKey::head(task.db, key), Arc::new(cell_of(&read.image)));
            }
        }
        Ok(cells)
    }

    fn view_of<'a>(&'a self, cells: &'a mut Gathered, db: Db) -> View<'a> {
        let now = self.env.now_ms();
        View::new(cells, self.replica.sealer(), db, Moment { now, stamp: Stamp::at(now) })
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
        image: &Image,
        only_new: bool,
    ) -> Result<Finished, Finished> {
        let mut args = vec![key.clone(), Bytes::from_static(if only_new { b"1" } else { b"0" })];
        for (data, deadline) in [&image.winner].into_iter().chain(&image.siblings) {
            args.push(data.clone());
            args.push(deadline.ms().map_or("-1".to_owned(), |ms| ms.to_string()).into());
        }
        self.step(task, db, ".PUT", args).await
    }

    async fn remove_read(self: &Arc<Self>, task: &Task, key: &Bytes, read: &Read) -> Result<Finished, Finished> {
        let removed = self.step(task, task.db, ".REMOVE", vec![key.clone(), read.context.clone()]).await;
        removed.map_err(|_| Finished::unknown("it is there under its new name and may still be under the old one"))
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

/// `.IMAGE key`: context, then value and deadline of the winner and of each sibling; nothing when the key is absent.
fn image(call: &Call, view: &mut View) -> Answer {
    let key = call.arg(1);
    let Some(image) = view.image(key)? else { return Ok(Reply::Nil) };
    let cell = view.cell(key)?;
    let context = view.seal(key, &cell);
    let values = [&image.winner].into_iter().chain(&image.siblings);
    let parts = values.flat_map(|(data, deadline)| {
        [Reply::bulk(data.clone()), Reply::Int(deadline.ms().map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX)))]
    });
    Ok(Reply::Array([Reply::bulk(context)].into_iter().chain(parts).collect()))
}

/// `.PUT key nx value deadline …`: the winner first. Answers 0 when `nx` is 1 and the key is there.
fn put(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    if call.arg(2) == "1" && draft.exists(key)? {
        return Ok(Reply::Int(0));
    }
    let mut values = call.args.get(3..).unwrap_or_default().chunks_exact(2).map(|pair| {
        let deadline = parse_i64(&pair[1]).and_then(|ms| u64::try_from(ms).ok());
        (pair[0].clone(), Deadline::from(deadline))
    });
    let winner = values.next().ok_or(SYNTAX)?;
    draft.put_image(key, &Image { winner, siblings: values.collect() })?;
    Ok(Reply::Int(1))
}

/// `.REMOVE key context`: removes what was read.
fn remove(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    let context = draft.open_context(key, call.arg(2)).map_err(|error| format!("ERR invalid context: {error}"))?;
    draft.remove_with_context(key, &context)?;
    Ok(Reply::ok())
}

/// Images as rows for a view.
#[derive(Default)]
struct Gathered(BTreeMap<Bytes, Arc<Cell>>);

impl Heads for Gathered {
    fn head(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault> {
        Ok(self.0.get(row).cloned().unwrap_or_default())
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

fn read_of(parts: Vec<Reply>) -> Option<Read> {
    let mut parts = parts.into_iter();
    let Some(Reply::Bulk(context)) = parts.next() else { return None };
    let mut values = Vec::new();
    while let (Some(Reply::Bulk(data)), Some(Reply::Int(deadline))) = (parts.next(), parts.next()) {
        values.push((data, Deadline::from(u64::try_from(deadline).ok())));
    }
    let mut values = values.into_iter();
    Some(Read { context, image: Image { winner: values.next()?, siblings: values.collect() } })
}

fn arg(task: &Task, at: usize) -> Bytes {
    task.args.get(at).cloned().unwrap_or_default()
}
