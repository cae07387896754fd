//! Collections in a draft: elements put, counted up and removed one by one, and whole collections ended at once.
//!
//! What adds begins with [`Draft::begin`], which refuses a key of another kind and sweeps away what is left of one that
//! has expired. What removes needs nothing else: an empty collection is absent.

use super::*;
use crate::base::kind::{Role, Tag};
use crate::base::limits::MAX_ROW_KEY_BYTES;
use crate::causality::{Clock, Local, Part};
use crate::model::look::{Held, Holds, Look, PAGE, Parcel, Parts, RowPage};
use crate::model::settle::move_row;

/// Collections of so many rows are ended row by row: that leaves nothing to be remembered or swept up later.
const ENDED_BY_ROW: u64 = if cfg!(test) { 4 } else { 32 };

/// What a draft has made of a key's collections.
#[derive(Clone)]
pub(super) struct Collections {
    /// The key's head row.
    head: Bytes,
    /// Rows that were there before the draft are there no more.
    cleared: bool,
    /// What there is now, of all kinds.
    parts: Parts,
}

impl Draft<'_> {
    /// What `key` is to plain commands; none when it is absent.
    pub fn kind(&mut self, key: &[u8]) -> Result<Option<Kind>, Fault> {
        Ok(self.holds(key)?.kind())
    }

    /// Makes `key` ready to take elements of `kind`, or a string: what is left of one that has expired goes. Answers what
    /// there is of `kind`; none when the key is absent.
    ///
    /// # Errors
    /// [`Fault::WrongKind`] when plain commands find another kind there.
    pub fn begin(&mut self, key: &[u8], kind: Kind) -> Result<Option<Held>, Fault> {
        let held = match kind {
            Kind::Text => self.holds(key).and_then(|holds| match holds.kind() {
                None => Ok(None),
                Some(Kind::Text) => Ok(Some(Held { kind, count: 1, hidden_until: None })),
                Some(_) => Err(Fault::WrongKind),
            })?,
            _ => self.open(key, kind)?,
        };
        if held.is_none() {
            self.clear_parts(key)?;
            self.sweep_head(key)?;
        }
        Ok(held)
    }

    /// Writes an element in place of what it was; says whether it is new.
    pub fn put_element(&mut self, key: &[u8], kind: Kind, name: &[u8], data: Bytes, ttl: Ttl) -> Result<bool, Fault> {
        self.change(key, kind.tag(), name, |edit| {
            let new = edit.visible().is_none();
            edit.set(data, ttl);
            new
        })
    }

    /// Writes what a command made of an element's value, as HINCRBYFLOAT does: see [`Draft::amend`].
    pub fn amend_element(&mut self, key: &[u8], kind: Kind, name: &[u8], data: Bytes) -> Result<(), Fault> {
        self.change(key, kind.tag(), name, |edit| edit.amend(data))
    }

    /// Removes an element; says whether it was there. A key that is left with nothing is absent, and owes its deadline
    /// nothing.
    pub fn remove_element(&mut self, key: &[u8], kind: Kind, name: &[u8]) -> Result<bool, Fault> {
        let row = RowKey::element(&self.head_row(key), kind.tag(), name);
        if Look::row(self, &row)?.is_empty() {
            return Ok(false);
        }
        let removed = self.change(key, kind.tag(), name, |edit| {
            let there = edit.visible().is_some();
            if there {
                edit.clear_out();
            }
            there
        })?;
        if removed {
            self.end_if_empty(key, kind)?;
        }
        Ok(removed)
    }

    /// Adds `by` to the integer that an element is (0 if it is absent) and answers the sum. Concurrent increments
    /// elsewhere all count.
    pub fn increment_element(&mut self, key: &[u8], kind: Kind, name: &[u8], by: i64) -> Result<i64, IncrError> {
        self.change(key, kind.tag(), name, |edit| edit.increment(by))?
    }

    /// Gives an element a deadline of its own, or takes it away; says whether the element is there.
    pub fn expire_element(&mut self, key: &[u8], kind: Kind, name: &[u8], deadline: Deadline) -> Result<bool, Fault> {
        self.change(key, kind.tag(), name, |edit| {
            let there = edit.visible().is_some();
            if there {
                edit.expire(deadline, None);
            }
            there
        })
    }

    /// Moves all that is to be seen of `key` to another name of the same region, in place of all that is there.
    pub fn rename(&mut self, key: &[u8], new: &[u8]) -> Result<(), Fault> {
        let (holds, image) = (self.holds(key)?, self.image(key)?);
        self.remove(new)?;
        if let Some(image) = &image {
            self.put_image(new, image)?;
        }
        self.end_at(new, holds.text, holds.ends)?;
        let mut from = Some(Bytes::new()).filter(|_| !holds.parts.is_empty());
        while let Some(first) = from {
            let (parcels, next) = self.parcels(key, &first)?;
            self.put_parcels(new, parcels)?;
            from = next;
        }
        self.remove(key).map(drop)
    }

    /// Writes rows of a collection that were taken elsewhere; the key may hold other things as well.
    pub fn put_parcels(&mut self, key: &[u8], parcels: Vec<Parcel>) -> Result<(), Fault> {
        for Parcel { tag, name, image } in parcels {
            self.change(key, tag, &name, |edit| edit.put_image(&image))?;
        }
        Ok(())
    }

    /// Gives collections that are to be taken from elsewhere the deadline that they had there.
    pub fn end_at(&mut self, key: &[u8], beside_text: bool, ends: Deadline) -> Result<(), Fault> {
        let Some(ms) = ends.ms() else { return Ok(()) };
        let generations = if beside_text { vec![expiry::WHOLE] } else { Vec::new() };
        self.edit(key)?.write(Payload::Expiry(Expiry { deadline: Some(ms), generations }));
        Ok(())
    }

    /// Removes what of an element `dots` name; the rest stay as siblings.
    pub fn resolve_element(
        &mut self,
        key: &[u8],
        kind: Kind,
        name: &[u8],
        context: &Context,
        put: Option<(Bytes, Deadline)>,
    ) -> Result<(), Fault> {
        self.check_born(context)?;
        self.change(key, kind.tag(), name, |edit| match put {
            Some((data, deadline)) => edit.put_with_context(data, deadline, context),
            None => edit.remove_with_context(context),
        })?;
        self.end_if_empty(key, kind)
    }

    /// Ends all collections under `key`, for something that takes their place; answers the time to live of that.
    pub(super) fn end_collections(&mut self, key: &[u8], ttl: Ttl) -> Result<Ttl, Fault> {
        let carried = match ttl {
            Ttl::Keep => {
                let holds = self.holds(key)?;
                if holds.parts.is_empty() || holds.text { ttl } else { Ttl::Set(holds.ends) }
            }
            ttl => ttl,
        };
        self.clear_parts(key)?;
        Ok(carried)
    }

    /// Removes all that a key with collections holds; says whether there was anything to be seen.
    pub(super) fn remove_all(&mut self, key: &[u8]) -> Result<bool, Fault> {
        let there = self.kind(key)?.is_some();
        if there {
            self.clear_parts(key)?;
            self.sweep_head(key)?;
        }
        Ok(there)
    }

    /// Gives such a key a deadline.
    pub(super) fn expire_all(&mut self, key: &[u8], deadline: Deadline) -> Result<bool, Fault> {
        let Holds { text, parts, .. } = self.holds(key)?;
        let mut latest = None;
        for held in &parts {
            latest = latest.max(self.part(key, held.kind)?.map(|part| part.latest));
        }
        if !text && latest.is_none() {
            return Ok(false);
        }
        self.edit(key)?.expire(deadline, latest);
        Ok(true)
    }

    /// Removes what has expired of such a key: all of it, or elements that had deadlines of their own.
    pub(super) fn reap_collections(&mut self, key: &[u8]) -> Result<bool, Fault> {
        let (now, holds) = (self.now(), self.holds(key)?);
        if holds.kind().is_none() {
            let rows = self.parts_of(key)?.iter().any(|part| part.rows > 0);
            self.clear_parts(key)?;
            return Ok(self.sweep_head(key)? || rows);
        }
        let mut reaped = 0;
        for held in holds.parts {
            let due = |part: &Part| part.ending > 0 && part.next_end < now;
            if self.part(key, held.kind)?.is_some_and(|part| due(&part)) || held.hidden_until.is_some() {
                reaped += self.reap_elements(key, held)?;
            }
        }
        Ok(reaped > 0)
    }

    /// Removes elements that have ended, some of them.
    fn reap_elements(&mut self, key: &[u8], held: Held) -> Result<usize, Fault> {
        if held.hidden_until.is_none() {
            let ended = self.ended(key, held.kind, PAGE as u64)?;
            for name in &ended {
                self.change(key, held.kind.tag(), name, |edit| edit.clear_out())?;
            }
            self.end_if_empty(key, held.kind)?;
            return Ok(ended.len());
        }
        let (head, now) = (self.head_row(key), self.now());
        let (mut from, end) = (RowKey::element(&head, held.kind.tag(), b""), RowKey::after_tag(&head, held.kind.tag()));
        let mut reaped = 0;
        while reaped < PAGE {
            let (rows, next) = self.rows(&from, &end, PAGE)?;
            for (row, cell) in rows {
                let hidden = |version: &Version| held.hidden_until.is_some_and(|until| version.stamp.ms() <= until);
                let left = cell.versions().iter().filter(|version| !hidden(version)).cloned().collect::<Cell>();
                if Visible::of(cell.versions(), 0).is_some() && Visible::of(left.versions(), now).is_none() {
                    let name = RowKey::element_of(&row);
                    self.change(key, held.kind.tag(), &name, |edit| edit.clear_out())?;
                    reaped += 1;
                }
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(reaped)
    }

    /// Runs `change` on the row of an element.
    fn change<T>(
        &mut self,
        key: &[u8],
        tag: Tag,
        name: &[u8],
        change: impl FnOnce(&mut Edit) -> T,
    ) -> Result<T, Fault> {
        self.looked = true;
        let head_at = self.locate(key)?;
        let head = self.rows[head_at].key.clone();
        let row = RowKey::element(&head, tag, name);
        if row.len() > MAX_ROW_KEY_BYTES {
            return Err(Fault::LongName);
        }
        let touched = self.touch(head_at);
        self.rows[head_at].more = true;
        let ends = expiry::of_whole(self.rows[head_at].cell.versions());
        let past = ends.ms().filter(|ms| *ms < self.now());
        let at = self.locate_row(row)?;
        let before = self.rows[at].cell.clone();
        let mut edit = self.edit_at(at);
        match past {
            Some(until) => edit.clear_until(until),
            None => edit.key_ends = ends,
        }
        let changed = change(&mut edit);
        let after = self.rows[at].cell.clone();
        if let Some(kind) = tag.kind() {
            move_row(part_of(&mut self.touched[touched].parts, kind), tag, &before, &after);
        }
        Ok(changed)
    }

    /// The place of a key among those touched, whose head row is at `head_at`.
    fn touch(&mut self, head_at: usize) -> usize {
        let head = &self.rows[head_at];
        if let Some(at) = self.touched.iter().position(|touched| touched.head == head.key) {
            return at;
        }
        let parts = head.before.local().map(|local| local.parts.clone()).unwrap_or_default();
        self.touched.push(Collections { head: head.key.clone(), cleared: false, parts });
        self.touched.len() - 1
    }

    /// Whether the draft has cleared the key of this row, which is no head row.
    pub(super) fn is_cleared(&self, row: &[u8]) -> bool {
        let of = |head: &Bytes| head.split_last().is_some_and(|(_, key)| row.starts_with(key) && row != &head[..]);
        self.touched.iter().any(|touched| touched.cleared && of(&touched.head))
    }

    /// Ends what of a key's collections a client has seen.
    pub(super) fn clear_named(&mut self, key: &[u8], context: &Context) -> Result<(), Fault> {
        let (Some(clear), parts) = (&context.clear, self.parts_of(key)?) else { return Ok(()) };
        if parts.is_empty() {
            return Ok(());
        }
        let clock = self.heads.clock();
        let untouched = !self.touched.iter().any(|touched| touched.head == self.head_row(key));
        if untouched && parts.iter().all(|part| part.lies_within(clear, &clock)) {
            return self.clear_parts(key);
        }
        // Something came since: that stays.
        let head = self.head_row(key);
        let (mut from, end) = (head.clone(), RowKey::after_key(&head));
        loop {
            let (rows, next) = self.rows(&from, &end, PAGE)?;
            for (row, cell) in rows {
                let Some((tag, name)) = RowKey::split(&row).filter(|(tag, _)| tag.role() != Role::Index) else {
                    continue;
                };
                if cell.dots().any(|dot| clear.contains(dot)) {
                    self.change(key, tag, name, |edit| edit.clear_where(|version| clear.contains(version.dot)))?;
                }
            }
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Forgets clocks that ended a key's collections, when every owner is known to have seen what they name.
    pub fn forget_clears(&mut self, head: &Bytes, dots: &[Dot]) -> Result<(), Fault> {
        let at = self.locate_row(head.clone())?;
        let row = &mut self.rows[at];
        let held: SmallVec<[Dot; 2]> = dots.iter().copied().filter(|dot| row.cell.holds(*dot)).collect();
        if !held.is_empty() {
            Arc::make_mut(&mut row.cell).retain(|version| !held.contains(&version.dot));
            row.superseded.extend(held);
        }
        Ok(())
    }

    pub(super) fn parts_of(&mut self, key: &[u8]) -> Result<Parts, Fault> {
        let head = self.head_row(key);
        if let Some(touched) = self.touched.iter().find(|touched| touched.head == head) {
            return Ok(touched.parts.clone());
        }
        let at = self.locate_row(head)?;
        Ok(self.rows[at].before.local().map(|local| local.parts.clone()).unwrap_or_default())
    }

    /// Ends the collections under a key, be they to be seen or not: row by row if they are few, else by naming all that
    /// is known of the region.
    fn clear_parts(&mut self, key: &[u8]) -> Result<(), Fault> {
        let parts = self.parts_of(key)?;
        let rows: u64 = parts.iter().map(|part| part.rows).sum();
        if rows == 0 {
            return Ok(());
        }
        let head_at = self.locate(key)?;
        let touched = self.touch(head_at);
        let by_row = rows <= ENDED_BY_ROW;
        if by_row || parts.iter().any(|part| self.has_foreign_runs(part)) {
            self.end_rows(key, by_row)?;
        }
        if !by_row {
            self.clear_by_clock(head_at, touched);
        }
        Ok(())
    }

    /// Whether others may have counted there: what they add later must not bring back what is removed now.
    fn has_foreign_runs(&self, part: &Part) -> bool {
        let DraftContext { actor, forgot, .. } = self.context;
        part.runs > 0 && part.highest.iter().any(|(other, highest)| *other != actor || *highest <= forgot)
    }

    /// Removes rows one by one: all of them, or those in which others' counters have run.
    fn end_rows(&mut self, key: &[u8], all: bool) -> Result<(), Fault> {
        let head = self.head_row(key);
        let actor = self.context.actor;
        let (mut from, end) = (head.clone(), RowKey::after_key(&head));
        let foreign = |version: &Version| run_of(version).is_some_and(|(run, _)| run.actor != actor);
        loop {
            let (rows, next) = self.rows(&from, &end, PAGE)?;
            for (row, cell) in rows {
                let Some((tag, name)) = RowKey::split(&row) else { continue };
                let wanted = all || cell.versions().iter().any(foreign);
                if matches!(tag.role(), Role::Element | Role::Side) && wanted {
                    self.change(key, tag, name, |edit| edit.clear_out())?;
                }
            }
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    fn clear_by_clock(&mut self, head_at: usize, touched: usize) {
        let mut clear = self.heads.clock();
        let head = self.rows[head_at].key.clone();
        self.keep(head_at);
        self.rows[head_at].supersede_clears(&mut clear);
        self.edit_at(head_at).write(Payload::Cleared(clear));
        let key = head.split_last().map(|(_, key)| key).unwrap_or_default();
        for at in 0..self.rows.len() {
            if self.rows[at].key != head && self.rows[at].key.starts_with(key) {
                self.keep(at);
                // What others' counters left behind is what stays.
                self.rows[at].supersede(|version| !matches!(version.payload, Payload::Void(_)));
            }
        }
        let touched = &mut self.touched[touched];
        touched.cleared = true;
        touched.parts.clear();
    }

    /// Takes a key's deadline away when nothing is left that it could end.
    fn end_if_empty(&mut self, key: &[u8], kind: Kind) -> Result<(), Fault> {
        let there = self.part(key, kind)?.is_some_and(|part| part.is_there());
        if !there && self.kind(key)?.is_none() {
            self.sweep_head(key)?;
        }
        Ok(())
    }

    /// Removes what is left in the head row of a key that is absent, or is to be; says whether there was anything.
    fn sweep_head(&mut self, key: &[u8]) -> Result<bool, Fault> {
        let spent = |version: &Version| matches!(version.payload, Payload::Void(_) | Payload::Cleared(_));
        let mut head = self.edit(key)?;
        let all_spent = head.row.cell.versions().iter().all(spent);
        if !all_spent {
            head.clear_out();
        }
        Ok(!all_spent)
    }
}

impl Edit<'_> {
    /// Removes what was written until a deadline that has passed.
    fn clear_until(&mut self, until: u64) {
        self.clear_where(|version| version.stamp.ms() <= until);
    }

    fn clear_where(&mut self, ended: impl Fn(&Version) -> bool) {
        let going: SmallVec<[Version; 2]> = self.row.cell.versions().iter().filter(|v| ended(v)).cloned().collect();
        let seen = seen_by_replacing(going.iter());
        self.row.supersede(ended);
        self.leave_void(self.still_needed(seen));
    }
}

impl Row {
    /// Takes out what ended collections before, in favour of what ends them now and names as much.
    fn supersede_clears(&mut self, clear: &mut Clock) {
        let former: SmallVec<[Dot; 2]> = self.cell.cleared().map(|(dot, _)| dot).collect();
        self.cell.cleared().for_each(|(_, clock)| clear.join(clock));
        if !former.is_empty() {
            Arc::make_mut(&mut self.cell).retain(|version| !former.contains(&version.dot));
            self.superseded.extend(former);
        }
    }
}

/// A row as it is in a draft that has changed these collections: a head row with local facts that say so.
pub(super) fn facts_of(row: &Row, touched: &[Collections]) -> Arc<Cell> {
    let parts = match touched.iter().find(|touched| touched.head == row.key) {
        Some(touched) => touched.parts.clone(),
        None => return with_local(&row.cell, row.before.local().cloned()),
    };
    with_local(&row.cell, Some(Local { parts, ..Local::default() }))
}

fn with_local(cell: &Arc<Cell>, local: Option<Local>) -> Arc<Cell> {
    if cell.local() == local.as_ref() {
        return cell.clone();
    }
    let mut cell = Cell::clone(cell);
    cell.set_local(local.map(Box::new));
    Arc::new(cell)
}

fn part_of(parts: &mut Parts, kind: Kind) -> &mut Part {
    let at = parts.iter().position(|part| part.kind >= kind).unwrap_or(parts.len());
    if parts.get(at).is_none_or(|part| part.kind != kind) {
        parts.insert(at, Part::new(kind));
    }
    &mut parts[at]
}

impl Look for Draft<'_> {
    fn now(&self) -> u64 {
        Draft::now(self)
    }

    fn chance(&mut self) -> u64 {
        self.heads.chance()
    }

    fn head_row(&self, key: &[u8]) -> Bytes {
        RowKey::head(self.context.region.db, key)
    }

    fn row(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault> {
        self.looked = true;
        if let Some(at) = self.place_of(row) {
            return Ok(self.rows[at].cell.clone());
        }
        if self.is_cleared(row) { Ok(Arc::default()) } else { self.heads.head(row) }
    }

    fn rows(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        self.looked = true;
        let (stored, next) =
            if self.is_cleared(from) { (Vec::new(), None) } else { self.heads.range(from, to, limit)? };
        let end = next.as_ref().unwrap_or(to);
        let own = self.rows.iter().filter(|row| row.key >= *from && row.key < *end);
        let mut rows: BTreeMap<Bytes, Arc<Cell>> = stored.into_iter().collect();
        rows.extend(own.map(|row| (row.key.clone(), row.cell.clone())));
        Ok((rows.into_iter().filter(|(_, cell)| !cell.is_empty()).collect(), next))
    }

    fn rows_back(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        self.looked = true;
        let (stored, next) =
            if self.is_cleared(from) { (Vec::new(), None) } else { self.heads.range_back(from, to, limit)? };
        let start = next.as_ref().unwrap_or(from);
        let own = self.rows.iter().filter(|row| row.key >= *start && row.key < *to);
        let mut rows: BTreeMap<Bytes, Arc<Cell>> = stored.into_iter().collect();
        rows.extend(own.map(|row| (row.key.clone(), row.cell.clone())));
        Ok((rows.into_iter().rev().filter(|(_, cell)| !cell.is_empty()).collect(), next))
    }

    fn head(&mut self, key: &[u8]) -> Result<(Arc<Cell>, Parts), Fault> {
        self.looked = true;
        let parts = self.parts_of(key)?;
        Ok((Look::row(self, &self.head_row(key))?, parts))
    }
}
