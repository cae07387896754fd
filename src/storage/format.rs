//! The data directory: whose it is, which format it has, who holds it, and the mark beside the database.
//!
//! ```text
//! FORMAT      text: magic, format version, which program made it, checksum
//! LOCK        held while a process has the directory; its inode is part of the fingerprint
//! MARK        the durable mark: magic, version, length, value, xxh3 of all that
//! journal/    segments: what was written and is not in tables yet
//! rows/       sorted tables
//! ```
//!
//! A directory is made in this order: `LOCK`, `FORMAT.new`, `rows/`, `journal/`, and at last `FORMAT.new` renamed to
//! `FORMAT`. So a directory without `FORMAT` holds nothing worth keeping and a crash while making one is repaired by
//! making it again. Format 1 had no `journal/`; one of that format is raised by renaming a new `FORMAT` over the old one
//! when all else is done, before anything is written into the journal.
//! Every file is replaced by writing a new one, syncing it, renaming it and syncing the directory.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::StoreError;
use crate::base::codec::Reader;

/// The format that this program writes. A change of anything on disk that an older program would misread raises it.
pub const FORMAT_VERSION: u32 = 2;

/// The first format with a journal of its own.
const FORMAT_WITH_JOURNAL: u32 = 2;

const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const LOCK: &str = "LOCK";
const MARK: &str = "MARK";
const MARK_NEW: &str = "MARK.new";
const ROWS: &str = "rows";
const JOURNAL: &str = "journal";
/// What may be in a directory that is not a data directory yet: our own beginnings, and what file systems put there.
const BEGINNINGS: [&str; 5] = [LOCK, FORMAT_NEW, ROWS, JOURNAL, "lost+found"];

const FORMAT_MAGIC: &str = "redynamo data directory";
const MARK_MAGIC: u32 = 0x5244_4d4b;
const MARK_VERSION: u8 = 1;

/// Why a data directory cannot be opened. Each reads as one line for an operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or this one, has it open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It has files but none of them says that it is a data directory.
    #[error("{} is not empty and not a redynamo data directory; choose an empty one", .0.display())]
    NotOurs(PathBuf),
    /// It was made by a program that knows more formats than this one.
    #[error("{} has data format {found}; this program knows up to {FORMAT_VERSION}", .dir.display())]
    UnknownFormat {
        /// Which directory.
        dir: PathBuf,
        /// What its FORMAT file says.
        found: u32,
    },
    /// Something in it is missing or cannot be read.
    #[error("{} is damaged: {what}", .dir.display())]
    Damaged {
        /// Which directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file system says no.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl OpenError {
    /// Damage of `dir`, said as `what`.
    pub fn damaged(dir: &Path, what: impl Into<String>) -> Self {
        OpenError::Damaged { dir: dir.to_owned(), what: what.into() }
    }

    /// What the file system said of `path`.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| OpenError::Io { path: path.to_owned(), source }
    }
}

/// Which disk of which machine a data directory lies on: a digest of the machine's id, the file system's device number
/// and the inode of the lock file. A copied or restored directory has another one. It may also change without a copy
/// (a device renumbered at boot), which costs a new actor id
/// and catching up with the others, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u128);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Which boot of this machine it is; 0 if the kernel does not say.
pub fn boot_id() -> u128 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0)
}

/// A data directory, held: no other process can open it until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
    fresh: bool,
    /// The format that it is in; that of this program if it is fresh.
    version: u32,
    /// Held while the mark is replaced: two at once would write one temporary file.
    marking: Mutex<()>,
}

impl DataDir {
    /// Opens or begins to make the data directory at `path`. If it [`is_fresh`](Self::is_fresh), call
    /// [`finish`](Self::finish) once everything that belongs into it is there.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(path).map_err(OpenError::io(path))?;
        refuse_strangers(path)?;
        let lock = take_lock(path)?;
        // Again under the lock: a process that had it meanwhile may have made the directory.
        let fresh = !exists(&path.join(FORMAT))?;
        let version = if fresh { FORMAT_VERSION } else { check_format(path)? };
        let dir = DataDir { path: path.to_owned(), lock, fresh, version, marking: Mutex::new(()) };
        if fresh {
            dir.begin()?;
        }
        Ok(dir)
    }

    /// Whether nothing was in it.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Where sorted tables are kept.
    pub fn rows(&self) -> PathBuf {
        self.path.join(ROWS)
    }

    /// Where the journal's segments are kept.
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Whether a journal must be there.
    pub fn has_journal(&self) -> bool {
        !self.fresh && self.version >= FORMAT_WITH_JOURNAL
    }

    /// Makes the journal's directory, empty.
    pub fn make_journal(&self) -> Result<(), OpenError> {
        let journal = self.journal();
        remove_dir(&journal)?;
        fs::create_dir(&journal).map_err(OpenError::io(&journal))?;
        sync_dir(&self.path).map_err(OpenError::io(&self.path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Declares a fresh directory made, and one of an older format raised.
    pub fn finish(&mut self) -> Result<(), OpenError> {
        if !self.fresh && self.version == FORMAT_VERSION {
            return Ok(());
        }
        let (new, target) = (self.path.join(FORMAT_NEW), self.path.join(FORMAT));
        if !self.fresh {
            write_synced(&new, encode_format().as_bytes()).map_err(OpenError::io(&new))?;
        }
        fs::rename(new, &target).map_err(OpenError::io(&target))?;
        self.sync_paths()?;
        (self.fresh, self.version) = (false, FORMAT_VERSION);
        Ok(())
    }

    /// See [`Fingerprint`].
    pub fn fingerprint(&self) -> Result<Fingerprint, OpenError> {
        let meta = self.lock.metadata().map_err(OpenError::io(&self.path))?;
        let mut text = machine_id();
        text.put_u64(meta.dev());
        text.put_u64(meta.ino());
        Ok(Fingerprint(xxh3_128(&text)))
    }

    /// The mark, if one was set. A mark that does not check is [`StoreError::Damaged`].
    pub fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        match fs::read(self.path.join(MARK)) {
            Ok(raw) => decode_mark(raw).map(Some).ok_or_else(|| StoreError::Damaged("the mark does not check".into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::Damaged(format!("the mark: {e}").into())),
        }
    }

    /// Replaces the mark. When this returns the new one is on disk; if it fails, the old or the new one is.
    pub fn set_mark(&self, value: &[u8]) -> Result<(), StoreError> {
        let _one_at_a_time = self.marking.lock();
        replace_file(&self.path, MARK_NEW, MARK, &encode_mark(value))
            .map_err(|e| StoreError::Failed(format!("the mark cannot be written: {e}").into()))
    }

    fn begin(&self) -> Result<(), OpenError> {
        remove_dir(&self.rows())?;
        remove_dir(&self.journal())?;
        let note = self.path.join(FORMAT_NEW);
        write_synced(&note, encode_format().as_bytes()).map_err(OpenError::io(&note))?;
        self.sync_paths()
    }

    fn sync_paths(&self) -> Result<(), OpenError> {
        sync_dir(&self.path).map_err(OpenError::io(&self.path))?;
        // The directory's own name; a parent that cannot be opened (a mount's root) has no name of ours to lose.
        if let Some(parent) = self.path.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent).or_else(ignore_permission).map_err(OpenError::io(parent))?;
        }
        Ok(())
    }
}

/// A directory without FORMAT may contain only what making one leaves behind.
fn refuse_strangers(path: &Path) -> Result<(), OpenError> {
    if exists(&path.join(FORMAT))? {
        return Ok(());
    }
    let begun = exists(&path.join(FORMAT_NEW))?;
    for entry in fs::read_dir(path).map_err(OpenError::io(path))? {
        let name = entry.map_err(OpenError::io(path))?.file_name();
        let known = BEGINNINGS.iter().any(|b| name == *b && (begun || ![ROWS, JOURNAL].contains(b)));
        // FORMAT may appear while this looks: another process is making it, and the lock will tell.
        if !known && name != FORMAT {
            return Err(OpenError::NotOurs(path.to_owned()));
        }
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&name).map_err(OpenError::io(&name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path: name, source }),
    }
}

fn encode_format() -> String {
    let body = format!("{FORMAT_MAGIC}\nformat {FORMAT_VERSION}\ncreated by {}\n", env!("CARGO_PKG_VERSION"));
    format!("{body}checksum {:016x}\n", xxh3_64(body.as_bytes()))
}

/// The format of a directory, if this program knows it.
fn check_format(dir: &Path) -> Result<u32, OpenError> {
    let path = dir.join(FORMAT);
    let raw = fs::read(&path).map_err(OpenError::io(&path))?;
    let damaged = || OpenError::damaged(dir, "its FORMAT file cannot be read");
    let text = std::str::from_utf8(&raw).map_err(|_| damaged())?;
    let (body, sum) = text.rsplit_once("checksum ").ok_or_else(damaged)?;
    if u64::from_str_radix(sum.trim_end(), 16) != Ok(xxh3_64(body.as_bytes())) {
        return Err(damaged());
    }
    let mut lines = body.lines();
    if lines.next() != Some(FORMAT_MAGIC) {
        return Err(damaged());
    }
    let version = lines.next().and_then(|l| l.strip_prefix("format ")?.parse::<u32>().ok()).ok_or_else(damaged)?;
    if !(1..=FORMAT_VERSION).contains(&version) {
        return Err(OpenError::UnknownFormat { dir: dir.to_owned(), found: version });
    }
    Ok(version)
}

fn encode_mark(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len().saturating_add(32));
    out.put_u32(MARK_MAGIC);
    out.put_u8(MARK_VERSION);
    out.put_u64(value.len() as u64);
    out.put_slice(value);
    out.put_u64(xxh3_64(&out));
    out
}

/// `None` for anything but what [`encode_mark`] made.
fn decode_mark(raw: Vec<u8>) -> Option<Bytes> {
    let body = raw.len().checked_sub(8)?;
    let expected = xxh3_64(raw.get(..body)?);
    let mut reader = Reader::new(raw.into());
    let known = reader.u32().ok()? == MARK_MAGIC && reader.u8().ok()? == MARK_VERSION;
    let len = usize::try_from(reader.u64().ok()?).ok()?;
    let value = reader.take(len).ok()?;
    let sum = reader.u64().ok()?;
    reader.finish().ok()?;
    (known && sum == expected).then_some(value)
}

fn machine_id() -> Vec<u8> {
    let known = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
    known.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default()
}

/// Puts `content` under `name` in `dir`, atomically and synced.
fn replace_file(dir: &Path, temporary: &str, name: &str, content: &[u8]) -> io::Result<()> {
    let new = dir.join(temporary);
    write_synced(&new, content)?;
    fs::rename(&new, dir.join(name))?;
    sync_dir(dir)
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes what was done to a directory's entries survive the machine.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn ignore_permission(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::PermissionDenied { Ok(()) } else { Err(error) }
}

fn exists(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(OpenError::io(path))
}

fn remove_dir(path: &Path) -> Result<(), OpenError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(OpenError::Io { path: path.to_owned(), source: e }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn made(path: &Path) -> DataDir {
        let mut dir = DataDir::open(path).unwrap();
        dir.finish().unwrap();
        dir
    }

    #[test]
    fn a_new_directory_is_made_once_and_opened_again() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/b");
        let mut dir = DataDir::open(&path).unwrap();
        assert!(dir.is_fresh());
        dir.finish().unwrap();
        drop(dir);
        assert!(!DataDir::open(&path).unwrap().is_fresh());
    }

    #[test]
    fn a_directory_whose_making_was_interrupted_is_made_again() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(tmp.path()).unwrap();
        fs::create_dir(dir.rows()).unwrap();
        fs::write(dir.rows().join("half"), "x").unwrap();
        dir.make_journal().unwrap();
        drop(dir);
        let again = DataDir::open(tmp.path()).unwrap();
        assert!(again.is_fresh() && !again.has_journal());
        assert!(!again.rows().exists() && !again.journal().exists());
    }

    #[test]
    fn a_directory_in_use_is_refused_with_one_line() {
        let tmp = tempfile::tempdir().unwrap();
        let _held = made(tmp.path());
        let error = DataDir::open(tmp.path()).unwrap_err();
        assert!(matches!(error, OpenError::InUse(_)));
        assert_eq!(error.to_string(), format!("{} is in use by another process", tmp.path().display()));
    }

    #[test]
    fn a_strangers_directory_is_refused_and_left_as_it_was() {
        for name in ["dump.rdb", "rows", "journal", "MARK"] {
            let tmp = tempfile::tempdir().unwrap();
            fs::write(tmp.path().join(name), "theirs").unwrap();
            let error = DataDir::open(tmp.path()).unwrap_err();
            assert!(error.to_string().contains("is not empty and not a redynamo data directory"), "{error}");
            assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_format_of_the_future_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        drop(made(tmp.path()));
        let body = format!("{FORMAT_MAGIC}\nformat 7\ncreated by 9.0.0\n");
        let text = format!("{body}checksum {:016x}\n", xxh3_64(body.as_bytes()));
        fs::write(tmp.path().join(FORMAT), text).unwrap();
        let error = DataDir::open(tmp.path()).unwrap_err();
        assert!(error.to_string().ends_with("has data format 7; this program knows up to 2"), "{error}");
    }

    #[test]
    fn a_directory_of_format_1_is_raised_when_it_is_finished() {
        let tmp = tempfile::tempdir().unwrap();
        drop(made(tmp.path()));
        let body = format!("{FORMAT_MAGIC}\nformat 1\ncreated by 0.1.0\n");
        let text = format!("{body}checksum {:016x}\n", xxh3_64(body.as_bytes()));
        fs::write(tmp.path().join(FORMAT), text).unwrap();
        let mut dir = DataDir::open(tmp.path()).unwrap();
        assert!(!dir.is_fresh() && !dir.has_journal());
        dir.finish().unwrap();
        drop(dir);
        assert!(DataDir::open(tmp.path()).unwrap().has_journal());
    }

    #[test]
    fn a_format_file_changed_in_any_byte_is_damage() {
        let tmp = tempfile::tempdir().unwrap();
        drop(made(tmp.path()));
        let path = tmp.path().join(FORMAT);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len().saturating_sub(1) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, bad).unwrap();
            assert!(matches!(DataDir::open(tmp.path()), Err(OpenError::Damaged { .. })), "byte {at}");
        }
    }

    #[test]
    fn the_mark_is_replaced_and_survives() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = made(tmp.path());
        assert_eq!(dir.mark(), Ok(None));
        dir.set_mark(b"one").unwrap();
        dir.set_mark(b"").unwrap();
        assert_eq!(dir.mark(), Ok(Some(Bytes::new())));
        dir.set_mark(b"three").unwrap();
        drop(dir);
        assert_eq!(made(tmp.path()).mark(), Ok(Some(Bytes::from_static(b"three"))));
    }

    #[test]
    fn a_damaged_mark_says_so_and_can_be_replaced() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = made(tmp.path());
        dir.set_mark(b"value").unwrap();
        let good = fs::read(tmp.path().join(MARK)).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(tmp.path().join(MARK), &bad).unwrap();
            assert_eq!(dir.mark(), Err(StoreError::Damaged("the mark does not check".into())));
            fs::write(tmp.path().join(MARK), &good[..at]).unwrap();
            assert!(dir.mark().is_err(), "cut at {at}");
        }
        dir.set_mark(b"new").unwrap();
        assert_eq!(dir.mark(), Ok(Some(Bytes::from_static(b"new"))));
    }

    #[test]
    fn the_fingerprint_stays_with_the_directory_and_not_with_a_copy() {
        let tmp = tempfile::tempdir().unwrap();
        let (here, copy) = (tmp.path().join("here"), tmp.path().join("copy"));
        let first = made(&here).fingerprint().unwrap();
        assert_eq!(made(&here).fingerprint().unwrap(), first);
        fs::create_dir(&copy).unwrap();
        for name in [FORMAT, LOCK] {
            fs::copy(here.join(name), copy.join(name)).unwrap();
        }
        assert_ne!(made(&copy).fingerprint().unwrap(), first);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_mark_or_refused_without_a_panic(raw: Vec<u8>, value: Vec<u8>) {
            prop_assert_eq!(decode_mark(raw), None);
            prop_assert_eq!(decode_mark(encode_mark(&value)), Some(Bytes::from(value)));
        }
    }
}
