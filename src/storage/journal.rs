//! The journal: what was written, in order, in segments on disk, until tables have it.
//!
//! A batch is one frame and one `write(2)`, so it survives the end of the process when [`Journal::append`] returns; a
//! [`Journal::sync`] makes it survive the machine, beside appends that go on meanwhile. A segment is made, synced and
//! entered in its directory before the first frame goes into it, by whoever has time for that ([`Journal::prepare`]).
//!
//! Reading back ([`recover`]) tells three things apart:
//!
//! - *a torn tail*: behind the last whole frame nothing whole follows. That was never acknowledged, or is the end that a
//!   power cut took before it was synced. It is cut off.
//! - *what a power cut left of the unsynced end*: pages reach a disk in any order, so whole frames may follow a gap. If
//!   the machine has been started anew since, and no frame behind the gap says that what is missing had been synced, then
//!   nothing that was promised is missing: cut off from the gap on.
//! - *damage*: everything else. The store does not open, since it would lose what it acknowledged.
//!
//! After a failed append or sync the file is left as it is: what was in it will be known by reading it back.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};

use super::Change;
use super::format::{OpenError, sync_dir};
use super::overlay::Overlay;
use super::segment::{self, Frame, HEADER_BYTES, Header};

/// Frames are built in blocks of this size; a larger frame gets one of its own.
const BLOCK_BYTES: usize = 1024 * 1024;

/// How far the tables have come: every segment up to this one, and the last frame in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Marker {
    /// The last segment whose rows are all in tables.
    pub segment: u64,
    /// Its last frame.
    pub sequence: u64,
}

/// See the module.
pub(super) struct Journal {
    dir: PathBuf,
    boot: u128,
    writer: Mutex<Writer>,
    /// Held while files are synced: who syncs second covers what the first took.
    syncing: Mutex<()>,
    synced: AtomicU64,
    /// The writer's length, for those who must not wait for an append.
    len: AtomicU64,
}

/// What one appender at a time has.
pub(super) struct Writer {
    segment: Segment,
    len: u64,
    sequence: u64,
    next_number: u64,
    spare: Option<Segment>,
    /// Full segments that no sync has covered yet.
    unsynced: Vec<Arc<File>>,
    block: BytesMut,
}

/// An open segment.
struct Segment {
    file: Arc<File>,
    number: u64,
    salt: u64,
}

/// What a full or recovered segment holds, until the tables have it.
#[derive(Debug)]
pub(super) struct Sealed {
    /// How far the tables have come once they have it.
    pub marker: Marker,
    /// Its rows.
    pub overlay: Arc<Overlay>,
    /// Its bytes on disk.
    pub bytes: u64,
}

impl Journal {
    /// A journal in `dir` behind what was [`recover`]ed. Makes its first segment.
    pub fn begin(dir: &Path, boot: u128, found: &Recovered) -> io::Result<Journal> {
        let first = Segment::create(dir, found.next_number, boot)?;
        let writer = Writer {
            segment: first,
            len: HEADER_BYTES as u64,
            sequence: found.last,
            next_number: found.next_number.saturating_add(1),
            spare: None,
            unsynced: Vec::new(),
            block: BytesMut::new(),
        };
        let (dir, synced) = (dir.to_owned(), AtomicU64::new(found.last));
        let (len, writer) = (AtomicU64::new(writer.len), Mutex::new(writer));
        Ok(Journal { dir, boot, writer, syncing: Mutex::new(()), synced, len })
    }

    /// Bytes in the segment that is being written.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// The right to append.
    pub fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }

    /// The right to append, if nobody has it.
    pub fn try_writer(&self) -> Option<MutexGuard<'_, Writer>> {
        self.writer.try_lock()
    }

    /// Writes changes, and answers their rows as [`segment::read_rows`] reads them. An error leaves open whether they will
    /// be found again.
    pub fn append(&self, writer: &mut Writer, changes: &[Change]) -> io::Result<Bytes> {
        let len = segment::frame_len(changes);
        if writer.block.capacity() < len {
            writer.block = BytesMut::with_capacity(len.max(BLOCK_BYTES));
        }
        let (salt, sequence) = (writer.segment.salt, writer.sequence.saturating_add(1));
        segment::put_frame(&mut writer.block, salt, sequence, self.synced.load(Ordering::Acquire), changes);
        let frame = writer.block.split().freeze();
        (&*writer.segment.file).write_all(&frame)?;
        writer.sequence = sequence;
        writer.len = writer.len.saturating_add(len as u64);
        self.len.store(writer.len, Ordering::Relaxed);
        Ok(frame.slice(segment::FRAME_BYTES.min(frame.len())..))
    }

    /// Goes on in the spare segment, or in a new one; answers the marker of the one that is full, and its bytes.
    pub fn rotate(&self, writer: &mut Writer) -> io::Result<(Marker, u64)> {
        let next = match writer.spare.take() {
            Some(spare) => spare,
            None => {
                writer.next_number = writer.next_number.saturating_add(1);
                Segment::create(&self.dir, writer.next_number.saturating_sub(1), self.boot)?
            }
        };
        let full = std::mem::replace(&mut writer.segment, next);
        let bytes = std::mem::replace(&mut writer.len, HEADER_BYTES as u64);
        writer.unsynced.push(full.file);
        self.len.store(writer.len, Ordering::Relaxed);
        Ok((Marker { segment: full.number, sequence: writer.sequence }, bytes))
    }

    /// Makes a spare segment if there is none.
    pub fn prepare(&self) -> io::Result<()> {
        let number = {
            let mut writer = self.writer.lock();
            if writer.spare.is_some() {
                return Ok(());
            }
            writer.next_number = writer.next_number.saturating_add(1);
            writer.next_number.saturating_sub(1)
        };
        let spare = Segment::create(&self.dir, number, self.boot)?;
        let mut writer = self.writer.lock();
        if writer.segment.number < number && writer.spare.is_none() {
            writer.spare = Some(spare);
            return Ok(());
        }
        drop(writer);
        // A rotation that could not wait has made a later one: segments are used in order of their numbers.
        self.remove(number)
    }

    /// Makes everything appended before the call survive the machine.
    pub fn sync(&self) -> io::Result<()> {
        let _one_at_a_time = self.syncing.lock();
        let (full, file, upto) = {
            let mut writer = self.writer.lock();
            (std::mem::take(&mut writer.unsynced), writer.segment.file.clone(), writer.sequence)
        };
        if upto > self.synced.load(Ordering::Acquire) {
            full.iter().try_for_each(|file| file.sync_data())?;
            file.sync_data()?;
            self.synced.store(upto, Ordering::Release);
        }
        Ok(())
    }

    /// Deletes a segment that the tables have.
    pub fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(path_of(&self.dir, number))
    }
}

impl Writer {
    /// Bytes in the segment that is being written.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether a spare segment lies ready.
    pub fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    /// Writes go to `file` from now on: a test's broken disk.
    #[cfg(test)]
    pub fn break_with(&mut self, file: File) {
        self.segment.file = Arc::new(file);
    }
}

impl Segment {
    fn create(dir: &Path, number: u64, boot: u128) -> io::Result<Segment> {
        let salt = RandomState::new().hash_one(number);
        let mut file = File::options().write(true).create_new(true).open(path_of(dir, number))?;
        file.write_all(&Header { number, salt, boot }.encode())?;
        file.sync_all()?;
        sync_dir(dir)?;
        Ok(Segment { file: Arc::new(file), number, salt })
    }
}

/// What a journal's directory held.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Segments that the tables do not have, oldest first. None is empty.
    pub sealed: Vec<Sealed>,
    /// The last frame.
    last: u64,
    next_number: u64,
    /// Files that are needed no more once there is a new segment.
    obsolete: Vec<PathBuf>,
    /// What an operator should hear of.
    pub notice: Option<String>,
}

impl Recovered {
    /// Nothing: a new journal's.
    pub fn none() -> Recovered {
        Recovered { sealed: Vec::new(), last: 0, next_number: 1, obsolete: Vec::new(), notice: None }
    }

    /// Deletes what the tables have already, and segments without a frame.
    pub fn clean_up(&self) -> io::Result<()> {
        self.obsolete.iter().try_for_each(fs::remove_file)
    }
}

/// A segment as it was found.
struct Found {
    path: PathBuf,
    header: Header,
    raw: Bytes,
}

/// Where reading had to stop.
#[derive(Clone, Copy)]
struct Gap {
    segment: usize,
    at: usize,
    /// The frame that should have been there.
    missing: u64,
}

/// Reads the journal in `dir`, cuts off what was never promised, and syncs what is left: see the module. `marker` is how
/// far the tables say that they have come.
pub(super) fn recover(dir: &Path, marker: Marker, boot: u128) -> Result<Recovered, OpenError> {
    let mut recovered = Recovered { last: marker.sequence, next_number: marker.segment, ..Recovered::none() };
    let segments = find_segments(dir, marker, &mut recovered)?;
    let mut gap = None;
    for (segment, found) in segments.iter().enumerate() {
        let (overlay, at) = replay(found, &mut recovered.last).map_err(|error| {
            damaged(dir, format!("rows in {} of the journal: {error}", name_of(found.header.number)))
        })?;
        if at == HEADER_BYTES {
            recovered.obsolete.push(found.path.clone());
        } else {
            let marker = Marker { segment: found.header.number, sequence: recovered.last };
            recovered.sealed.push(Sealed { marker, overlay: Arc::new(overlay), bytes: at as u64 });
        }
        if at < found.raw.len() {
            gap = Some(Gap { segment, at, missing: recovered.last.saturating_add(1) });
            break;
        }
    }
    if let Some(gap) = gap {
        recovered.notice = judge(dir, &segments, gap, boot)?;
        cut(&segments, gap).map_err(OpenError::io(dir))?;
    }
    let kept = segments.iter().take(gap.map_or(segments.len(), |gap| gap.segment + 1));
    for found in kept {
        File::open(&found.path).and_then(|file| file.sync_data()).map_err(OpenError::io(&found.path))?;
    }
    sync_dir(dir).map_err(OpenError::io(dir))?;
    Ok(recovered)
}

/// The segments that the tables do not have, oldest first.
fn find_segments(dir: &Path, marker: Marker, recovered: &mut Recovered) -> Result<Vec<Found>, OpenError> {
    let mut segments = Vec::new();
    for (number, path) in segment_files(dir).map_err(OpenError::io(dir))? {
        recovered.next_number = recovered.next_number.max(number);
        if number <= marker.segment {
            recovered.obsolete.push(path);
            continue;
        }
        let raw = Bytes::from(fs::read(&path).map_err(OpenError::io(&path))?);
        match Header::read(&raw) {
            Ok(header) if header.number == number => segments.push(Found { path, header, raw }),
            // Whoever made it was interrupted: a segment is synced before a frame goes into it.
            Err(_) if raw.len() <= HEADER_BYTES => recovered.obsolete.push(path),
            _ => return Err(damaged(dir, format!("{} of the journal has no beginning", name_of(number)))),
        }
    }
    recovered.next_number = recovered.next_number.saturating_add(1);
    if segments.is_empty() { Err(damaged(dir, "the journal is gone")) } else { Ok(segments) }
}

/// Takes in the frames that follow `last`, and answers where they end.
fn replay(found: &Found, last: &mut u64) -> Result<(Overlay, usize), crate::base::codec::DecodeError> {
    let (mut overlay, mut at) = (Overlay::default(), HEADER_BYTES);
    while let Some(frame) = segment::frame_at(&found.raw, at, found.header.salt) {
        if frame.sequence != last.saturating_add(1) {
            break;
        }
        segment::read_rows(&frame.rows, |space, row| overlay.put(space, row))?;
        *last = frame.sequence;
        at = at.saturating_add(frame.len);
    }
    Ok((overlay, at))
}

/// Whether what follows a gap may go; if it is more than a torn tail, with a notice.
fn judge(dir: &Path, segments: &[Found], gap: Gap, boot: u128) -> Result<Option<String>, OpenError> {
    let behind = segments
        .iter()
        .enumerate()
        .skip(gap.segment)
        .flat_map(|(index, found)| frames_behind(found, if index == gap.segment { gap.at } else { HEADER_BYTES }));
    let (frames, synced) = behind.fold((0u64, 0), |(count, synced), frame| (count + 1, frame.synced.max(synced)));
    if frames == 0 {
        return Ok(None);
    }
    let Some(found) = segments.get(gap.segment) else { return Ok(None) };
    let (name, at) = (name_of(found.header.number), gap.at);
    if found.header.boot == boot || synced >= gap.missing {
        return Err(damaged(dir, format!("{name} of the journal, byte {at}: what follows is whole, this is not")));
    }
    Ok(Some(format!(
        "{name} of the journal ends at byte {at}: {frames} writes behind it had not been synced when the machine stopped"
    )))
}

/// Every whole frame at or behind `at`.
fn frames_behind(found: &Found, mut at: usize) -> impl Iterator<Item = Frame> {
    std::iter::from_fn(move || {
        let (begin, frame) = segment::find_frame(&found.raw, at, found.header.salt)?;
        at = begin.saturating_add(frame.len);
        Some(frame)
    })
}

/// Cuts the journal off at a gap. Backwards, so that being interrupted leaves the same gap.
fn cut(segments: &[Found], gap: Gap) -> io::Result<()> {
    for found in segments.iter().skip(gap.segment + 1).rev() {
        fs::remove_file(&found.path)?;
    }
    match segments.get(gap.segment) {
        Some(found) => File::options().write(true).open(&found.path)?.set_len(gap.at as u64),
        None => Ok(()),
    }
}

fn damaged(dir: &Path, what: impl Into<String>) -> OpenError {
    OpenError::damaged(dir.parent().unwrap_or(dir), what)
}

fn segment_files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("segment-")?.parse().ok());
        files.extend(number.map(|number| (number, entry.path())));
    }
    files.sort_unstable();
    Ok(files)
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(name_of(number))
}

fn name_of(number: u64) -> String {
    format!("segment-{number:012}")
}

#[cfg(test)]
mod tests;
