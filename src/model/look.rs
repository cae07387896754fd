//! Looking at what a key holds, whether rows are only read or are being changed: [`Look`] is what a [`View`] and a
//! [`Draft`](super::Draft) have in common. Single elements, several, pages in order, counts; never a whole collection.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::image::Image;
use super::row::RowKey;
use super::view::{Fault, View};
use super::visible::Visible;
use crate::base::kind::{Kind, Role, Tag};
use crate::causality::expiry::{Deadline, of_whole};
use crate::causality::{Cell, Part};

/// Rows of a page where nobody says how many: enough that most collections are one page.
pub const PAGE: usize = 256;

/// What a key holds at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holds {
    /// A string or counter.
    pub text: bool,
    /// Collections, ascending by kind.
    pub parts: SmallVec<[Held; 1]>,
    /// When the collections end.
    pub ends: Deadline,
}

/// What a key holds of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which kind.
    pub kind: Kind,
    /// How many elements.
    pub count: u64,
    /// Elements written until then have ended with the key, and are not counted.
    pub hidden_until: Option<u64>,
}

impl Holds {
    /// The kind that answers plain commands: of several the greatest. None when the key is absent.
    pub fn kind(&self) -> Option<Kind> {
        self.parts.last().map(|held| held.kind).or(self.text.then_some(Kind::Text))
    }

    /// What there is of `kind`.
    pub fn part(&self, kind: Kind) -> Option<Held> {
        self.parts.iter().copied().find(|held| held.kind == kind)
    }
}

/// What a key is to plain commands, as far as its head row tells: elements with deadlines of their own are there until
/// they are reaped.
pub fn kind_of_head(head: &Cell, now: u64) -> Option<Kind> {
    let past = of_whole(head.versions()).ms().filter(|ms| *ms < now);
    let there = |part: &&Part| part.is_there() && past.is_none_or(|past| part.latest > past);
    let last = head.local().and_then(|local| local.parts.iter().rfind(there));
    let text = || Visible::of(head.versions(), now).map(|_| Kind::Text);
    last.map(|part| part.kind).or_else(text)
}

/// When something of a key ends next, as far as its head row tells.
pub fn next_end_of_head(head: &Cell, now: u64) -> Option<u64> {
    let text = Visible::of(head.versions(), now).and_then(|visible| visible.deadline().ms());
    let Some(local) = head.local() else { return text };
    let there = || local.parts.iter().filter(|part| part.is_there());
    let whole = of_whole(head.versions()).ms().filter(|_| there().next().is_some());
    let own = there().filter(|part| part.ending > 0).map(|part| part.next_end);
    text.into_iter().chain(whole).chain(own).min()
}

/// An element that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What it is called: a member, a field, a position.
    pub name: Bytes,
    /// Its versions.
    pub cell: Arc<Cell>,
}

impl Element {
    /// Its value: the winner, with what counters add.
    pub fn text(&self, now: u64) -> Bytes {
        Visible::of(self.cell.versions(), now).map(|visible| visible.text()).unwrap_or_default()
    }
}

/// From where to where a page goes, in the order of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span<'a> {
    /// The first that may be in it.
    pub from: &'a [u8],
    /// The first that is not; none: to the end.
    pub to: Option<&'a [u8]>,
}

/// Bytes of a time at the beginning of an index row by ends.
const END_BYTES: usize = 8;

/// Elements of a page, and where to go on if there may be more.
pub type Elements = (Vec<Element>, Option<Bytes>);

/// A row of a collection, to be written under another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// What it is.
    pub tag: Tag,
    /// Its element.
    pub name: Bytes,
    /// What it says: siblings and all.
    pub image: Image,
}

/// What is known of each kind.
pub type Parts = SmallVec<[Part; 1]>;

/// Parcels of a page, and where to go on if there may be more.
pub type Parcels = (Vec<Parcel>, Option<Bytes>);

/// Reading a key's rows.
pub trait Look {
    /// Wall time, in milliseconds since the epoch.
    fn now(&self) -> u64;

    /// A number for drawing at random.
    fn chance(&mut self) -> u64;

    /// The key's head row.
    fn head_row(&self, key: &[u8]) -> Bytes;

    /// A row, without what its key's clearing hides.
    fn row(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault>;

    /// Rows of `[from, to)` of one key, ascending, without what its clearing hides; `limit` of those that are stored. With
    /// them where to go on if there may be more.
    fn rows(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault>;

    /// The same from the end: descending, and with them, if there may be more, the row before which to go on.
    fn rows_back(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault>;

    /// A key's head row, and what is known of its collections, all deadlines aside.
    fn head(&mut self, key: &[u8]) -> Result<(Arc<Cell>, Parts), Fault>;

    /// What is known of the key's part of `kind`.
    fn part(&mut self, key: &[u8], kind: Kind) -> Result<Option<Part>, Fault> {
        Ok(self.head(key)?.1.into_iter().find(|part| part.kind == kind))
    }

    /// What `key` holds.
    fn holds(&mut self, key: &[u8]) -> Result<Holds, Fault> {
        let ((head, known), now) = (self.head(key)?, self.now());
        let text = Visible::of(head.versions(), now).is_some();
        let ends = of_whole(head.versions());
        let past = ends.ms().filter(|ms| *ms < now);
        let mut parts = SmallVec::new();
        for part in known {
            parts.extend(self.held(key, &part, past)?);
        }
        Ok(Holds { text, ends: if parts.is_empty() { Deadline::Never } else { ends }, parts })
    }

    /// What is to be seen of a part whose deadline has passed at `past`, if it has.
    fn held(&mut self, key: &[u8], part: &Part, past: Option<u64>) -> Result<Option<Held>, Fault> {
        let (kind, now) = (part.kind, self.now());
        let hidden_until = past.filter(|past| part.latest > *past);
        if !part.is_there() || (past.is_some() && hidden_until.is_none()) {
            return Ok(None);
        }
        let held = Held { kind, count: part.count, hidden_until };
        if hidden_until.is_none() && (part.ending == 0 || part.next_end >= now) {
            return Ok(Some(held));
        }
        let count = match hidden_until {
            None => part.count.saturating_sub(self.ended(key, kind, u64::MAX)?.len() as u64),
            Some(_) => {
                // Some ended with the key and some were written after that: only a walk can tell.
                let mut count = 0;
                self.each(key, held, |_| {
                    count += 1;
                    Ok::<(), Fault>(())
                })?;
                count
            }
        };
        Ok((count > 0 || part.side > 0).then_some(Held { count, ..held }))
    }

    /// Names of elements that had ends of their own, which have passed, and that are not reaped yet; at most so many.
    fn ended(&mut self, key: &[u8], kind: Kind, most: u64) -> Result<Vec<Bytes>, Fault> {
        let mut ended = Vec::new();
        if kind != Kind::Hash {
            return Ok(ended);
        }
        let (head, now) = (self.head_row(key), self.now());
        let mut from = Some(RowKey::element(&head, Tag::HASH_ENDS, b""));
        let end = RowKey::element(&head, Tag::HASH_ENDS, &now.to_be_bytes());
        while let Some(first) = from {
            let (rows, next) = self.rows(&first, &end, PAGE)?;
            for (row, _) in rows {
                let index = RowKey::element_of(&row);
                let name = index.slice(END_BYTES.min(index.len())..);
                let cell = self.row(&RowKey::element(&head, kind.tag(), &name))?;
                // What is being changed has its index row as it was.
                let there = |at| Visible::of(cell.versions(), at).is_some();
                if there(0) && !there(now) && (ended.len() as u64) < most {
                    ended.push(name);
                }
            }
            from = next.filter(|_| (ended.len() as u64) < most);
        }
        Ok(ended)
    }

    /// What `key` holds of `kind`; none when it is absent.
    ///
    /// # Errors
    /// [`Fault::WrongKind`] when plain commands find another kind there.
    fn open(&mut self, key: &[u8], kind: Kind) -> Result<Option<Held>, Fault> {
        let holds = self.holds(key)?;
        match holds.kind() {
            None => Ok(None),
            Some(found) if found == kind => Ok(holds.part(kind)),
            Some(_) => Err(Fault::WrongKind),
        }
    }

    /// An element of what was opened, if it is there.
    fn element(&mut self, key: &[u8], held: Held, name: &[u8]) -> Result<Option<Element>, Fault> {
        let row = RowKey::element(&self.head_row(key), held.kind.tag(), name);
        let (cell, now) = (self.row(&row)?, self.now());
        Ok(seen(cell, held, now).map(|cell| Element { name: Bytes::copy_from_slice(name), cell }))
    }

    /// Elements of what was opened, in order, about `limit` of them.
    fn page(&mut self, key: &[u8], held: Held, span: Span, limit: usize) -> Result<Elements, Fault> {
        self.page_of(key, held, held.kind.tag(), span, limit)
    }

    /// The same of other rows of the collection.
    fn page_of(&mut self, key: &[u8], held: Held, tag: Tag, span: Span, limit: usize) -> Result<Elements, Fault> {
        let (head, now) = (self.head_row(key), self.now());
        let from = RowKey::element(&head, tag, span.from);
        let to = span.to.map_or_else(|| RowKey::after_tag(&head, tag), |to| RowKey::element(&head, tag, to));
        let (rows, next) = self.rows(&from, &to, limit)?;
        let there = rows
            .into_iter()
            .filter_map(|(row, cell)| Some(Element { name: RowKey::element_of(&row), cell: seen(cell, held, now)? }));
        Ok((there.collect(), next.map(|row| RowKey::element_of(&row))))
    }

    /// Elements of what was opened from the end of a span, descending, about `limit` of them; with them before which to go
    /// on, if there may be more.
    fn page_back(&mut self, key: &[u8], held: Held, span: Span, limit: usize) -> Result<Elements, Fault> {
        let (head, now, tag) = (self.head_row(key), self.now(), held.kind.tag());
        let from = RowKey::element(&head, tag, span.from);
        let to = span.to.map_or_else(|| RowKey::after_tag(&head, tag), |to| RowKey::element(&head, tag, to));
        let (rows, next) = self.rows_back(&from, &to, limit)?;
        let there = rows
            .into_iter()
            .filter_map(|(row, cell)| Some(Element { name: RowKey::element_of(&row), cell: seen(cell, held, now)? }));
        Ok((there.collect(), next.map(|row| RowKey::element_of(&row))))
    }

    /// All that is to be seen of a key's collections, of every kind, a page at a time: `from` is where the one before said
    /// to go on, empty to begin with.
    fn parcels(&mut self, key: &[u8], from: &Bytes) -> Result<Parcels, Fault> {
        let (holds, head, now) = (self.holds(key)?, self.head_row(key), self.now());
        let first = if from.is_empty() { RowKey::element(&head, Kind::Hash.tag(), b"") } else { from.clone() };
        let (rows, next) = self.rows(&first, &RowKey::after_key(&head), PAGE)?;
        let parcels = rows.into_iter().filter_map(|(row, cell)| {
            let (tag, name) = RowKey::split(&row)?;
            let held = holds.part(tag.kind()?).filter(|_| tag.role() != Role::Index)?;
            let image = Image::of(&*seen(cell, held, now)?, now)?;
            Some(Parcel { tag, name: Bytes::copy_from_slice(name), image })
        });
        Ok((parcels.collect(), next))
    }

    /// Calls `each` with every element of what was opened, in order.
    fn each<E: From<Fault>>(
        &mut self,
        key: &[u8],
        held: Held,
        mut each: impl FnMut(Element) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut from = Some(Bytes::new());
        while let Some(first) = from {
            let (elements, next) = self.page(key, held, Span { from: &first, to: None }, PAGE)?;
            elements.into_iter().try_for_each(&mut each)?;
            from = next;
        }
        Ok(())
    }
}

/// Rows in order, and where to go on.
pub type RowPage = (Vec<(Bytes, Arc<Cell>)>, Option<Bytes>);

/// What is to be seen of an element's cell; none if nothing is.
fn seen(mut cell: Arc<Cell>, held: Held, now: u64) -> Option<Arc<Cell>> {
    if let Some(until) = held.hidden_until
        && cell.versions().iter().any(|version| version.stamp.ms() <= until)
    {
        Arc::make_mut(&mut cell).retain(|version| version.stamp.ms() > until);
    }
    Visible::of(cell.versions(), now)?;
    Some(cell)
}

impl Look for View<'_> {
    fn now(&self) -> u64 {
        View::now(self)
    }

    fn chance(&mut self) -> u64 {
        self.heads().chance()
    }

    fn head_row(&self, key: &[u8]) -> Bytes {
        RowKey::head(self.db(), key)
    }

    fn row(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault> {
        self.heads().head(row)
    }

    fn rows(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        self.heads().range(from, to, limit)
    }

    fn rows_back(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        self.heads().range_back(from, to, limit)
    }

    fn head(&mut self, key: &[u8]) -> Result<(Arc<Cell>, Parts), Fault> {
        let head = self.row(&self.head_row(key))?;
        let parts = head.local().map(|local| local.parts.clone()).unwrap_or_default();
        Ok((head, parts))
    }
}
