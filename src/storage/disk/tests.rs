//! The store on disk, in small: segments of a few rows, damage, failures.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::*;
use crate::base::rng::Rng;

const SMALL: DiskOptions = DiskOptions { cache_bytes: MIB, segment_bytes: 2_000, segments_waiting: 3, compress: true };

fn open(path: &Path) -> Result<DiskStore, OpenError> {
    DiskStore::open(path, SMALL)
}

fn with_large_segments(path: &Path) -> DiskStore {
    DiskStore::open(path, DiskOptions { segment_bytes: MIB, ..SMALL }).unwrap()
}

fn put(store: &DiskStore, space: Space, key: impl Into<Bytes>, value: &str) {
    store.write(vec![Change::put(space, key, value.to_owned())], Durability::Buffered).unwrap();
}

fn filled(path: &Path) -> DiskStore {
    let store = with_large_segments(path);
    (0..200u32).for_each(|n| put(&store, Space::Data, n.to_be_bytes().to_vec(), "value"));
    store
}

fn all(store: &DiskStore, space: Space) -> Vec<(Bytes, Bytes)> {
    let mut rows = Vec::new();
    let each = &mut |key: &[u8], value: &[u8]| {
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        ControlFlow::Continue(())
    };
    store.visit(space, b"", b"", each).unwrap();
    rows
}

/// Until every full segment is in tables.
fn carried(store: &DiskStore) {
    while store.usage().flushes_pending > 0 {
        store.tend().unwrap();
        thread::sleep(Duration::from_millis(2));
    }
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A directory as a kill would leave it: what is in the kernel counts.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn rows_are_the_same_in_memory_on_the_way_and_in_tables() {
    let tmp = tempfile::tempdir().unwrap();
    let store = open(tmp.path()).unwrap();
    let mut rng = Rng::new(1);
    let mut model = std::collections::BTreeMap::new();
    for round in 0..600u32 {
        let key = Bytes::copy_from_slice(&(rng.below(50) as u32).to_be_bytes());
        let value = (rng.below(4) > 0).then(|| Bytes::from(round.to_string()));
        let batch = vec![Change { space: Space::Data, key: key.clone(), value: value.clone() }];
        store.write(batch, Durability::Buffered).unwrap();
        match value {
            Some(value) => drop(model.insert(key.clone(), value)),
            None => drop(model.remove(&key)),
        }
        assert_eq!(store.get(Space::Data, &key).unwrap(), model.get(&key).cloned());
        if round % 50 == 0 {
            assert_eq!(all(&store, Space::Data), model.clone().into_iter().collect::<Vec<_>>());
        }
    }
    carried(&store);
    assert_eq!(all(&store, Space::Data), model.clone().into_iter().collect::<Vec<_>>());
    assert!(store.usage().tables > 0);
    drop(store);
    let store = open(tmp.path()).unwrap();
    carried(&store);
    assert_eq!(all(&store, Space::Data), model.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all_while_rows_are_carried_over() {
    let tmp = tempfile::tempdir().unwrap();
    let store = open(tmp.path()).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..150u32 {
                let rows = (0..20u8).map(|n| Change::put(Space::Data, vec![n], round.to_be_bytes().to_vec()));
                store.write(rows.collect(), Durability::Buffered).unwrap();
            }
        });
        while !writer.is_finished() {
            let rows = all(&store, Space::Data);
            assert!(rows.len() == 20 || rows.is_empty());
            assert!(rows.windows(2).all(|pair| pair[0].1 == pair[1].1), "two rounds in one visit");
        }
    });
}

#[test]
fn a_kill_at_any_moment_of_carrying_over_loses_nothing_and_brings_nothing_back() {
    let tmp = tempfile::tempdir().unwrap();
    let (live, killed) = (tmp.path().join("live"), tmp.path().join("killed"));
    let store = with_large_segments(&live);
    for space in Space::ALL {
        put(&store, space, "kept", "1");
        put(&store, space, "gone", "1");
    }
    drop(store);
    let store = open(&live).unwrap();
    carried(&store);
    for space in Space::ALL {
        put(&store, space, "kept", "2");
        store.write(vec![Change::remove(space, "gone")], Durability::Buffered).unwrap();
    }
    copy(&live, &killed);
    drop(store);
    let expected = [("kept".into(), "2".into())];
    let check = |path: &Path, what: &str| {
        let store = open(path).unwrap();
        assert!(Space::ALL.iter().all(|space| all(&store, *space) == expected), "{what}");
        carried(&store);
        assert!(Space::ALL.iter().all(|space| all(&store, *space) == expected), "{what}, carried over");
    };
    let journal = segments(&killed);
    let aside: Vec<_> = journal.iter().map(|path| fs::read(path).unwrap()).collect();
    check(&killed, "before anything was carried over");
    let put_back = || journal.iter().zip(&aside).for_each(|(path, raw)| fs::write(path, raw).unwrap());
    put_back();
    check(&killed, "between the tables and the end of the segment");
    let half = tmp.path().join("half");
    copy(&live, &half);
    {
        // Only one space has come into the tables, and no marker.
        let dir = DataDir::open(&half).unwrap();
        let tables = Tables::open(&dir, &SMALL).unwrap();
        let found = journal::recover(&dir.journal(), tables.marker().unwrap(), boot_id()).unwrap();
        tables.ingest_space(Space::Hints, &found.sealed[0].overlay, None).unwrap();
    }
    check(&half, "between two spaces");
}

#[test]
fn a_reader_does_not_see_what_is_written_after_it_began() {
    let tmp = tempfile::tempdir().unwrap();
    let store = filled(tmp.path());
    let mut seen = 0;
    let each = &mut |_: &[u8], value: &[u8]| {
        if seen == 0 {
            (0..200u32).for_each(|n| put(&store, Space::Data, n.to_be_bytes().to_vec(), "later"));
            put(&store, Space::Data, vec![0xee], "later");
        }
        seen += 1;
        assert_eq!(value, b"value");
        ControlFlow::Continue(())
    };
    store.visit(Space::Data, b"", b"", each).unwrap();
    assert_eq!((seen, all(&store, Space::Data).len()), (200, 201));
}

#[test]
fn writes_wait_for_room_and_say_so_beforehand() {
    let tmp = tempfile::tempdir().unwrap();
    let options = DiskOptions { segments_waiting: 1, ..SMALL };
    let store = DiskStore::open(tmp.path(), options).unwrap();
    for n in 0..600u32 {
        put(&store, Space::Data, n.to_be_bytes().to_vec(), "a value of some length");
        let usage = store.usage();
        assert!(usage.flushes_pending <= 1 && usage.journals == usage.flushes_pending + 1);
        assert!(usage.memtable_bytes < 2 * 2_100, "{usage:?}");
    }
    carried(&store);
    while !store.is_ready() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(all(&store, Space::Data).len(), 600);
}

#[test]
fn tables_are_merged_until_there_are_few_even_when_nothing_is_written_any_more() {
    let tmp = tempfile::tempdir().unwrap();
    let store = open(tmp.path()).unwrap();
    for n in 0..900u32 {
        put(&store, Space::Data, (n % 90).to_be_bytes().to_vec(), &format!("a value of some length, the {n}th"));
    }
    carried(&store);
    // Eight unmerged ones of a space are too many.
    while store.usage().tables >= 18 || store.shared.tables.behind() {
        thread::sleep(Duration::from_millis(5));
    }
    let rows = all(&store, Space::Data);
    assert_eq!(rows.len(), 90);
    assert!(rows.iter().enumerate().all(|(n, (_, value))| value.ends_with(format!("the {}th", 810 + n).as_bytes())));
}

#[test]
fn who_waits_for_room_hears_of_the_failure_that_lets_it_never_come() {
    let tmp = tempfile::tempdir().unwrap();
    let store = DiskStore::open(tmp.path(), DiskOptions { segments_waiting: 1, ..SMALL }).unwrap();
    // Tables cannot be written any more.
    fs::remove_dir_all(tmp.path().join("rows")).unwrap();
    let failed = (0..10_000u32)
        .find_map(|n| {
            store.write(vec![Change::put(Space::Data, n.to_be_bytes().to_vec(), "v")], Durability::Buffered).err()
        })
        .unwrap();
    assert!(failed.to_string().contains("rows cannot be written into tables"), "{failed}");
    assert_eq!(store.tend(), Err(failed));
}

#[test]
fn after_a_failed_append_or_sync_writes_fail_and_reads_go_on_until_reopened() {
    for synced in [false, true] {
        let tmp = tempfile::tempdir().unwrap();
        let store = filled(tmp.path());
        let full = File::options().write(true).open("/dev/full").unwrap();
        let change = || vec![Change::put(Space::Data, "k", "v")];
        let failed = if synced {
            put(&store, Space::Data, "l", "v");
            store.shared.journal.writer().break_with(full);
            store.sync().unwrap_err()
        } else {
            store.shared.journal.writer().break_with(full);
            store.write(change(), Durability::Buffered).unwrap_err()
        };
        assert!(failed.to_string().starts_with("the store takes no more writes: the journal cannot be"), "{failed}");
        assert_eq!(store.sync(), Err(failed.clone()));
        assert_eq!(store.tend(), Err(failed.clone()));
        assert_eq!(store.write(change(), Durability::Synced), Err(failed));
        assert_eq!(all(&store, Space::Data).len(), 200 + usize::from(synced));
        drop(store);
        let again = open(tmp.path()).unwrap();
        again.write(change(), Durability::Synced).unwrap();
        assert_eq!(all(&again, Space::Data).len(), 201 + usize::from(synced));
    }
}

#[test]
fn a_directory_is_held_by_one_store_at_a_time() {
    let tmp = tempfile::tempdir().unwrap();
    let store = open(tmp.path()).unwrap();
    assert!(matches!(open(tmp.path()), Err(OpenError::InUse(_))));
    drop(store);
    open(tmp.path()).unwrap();
}

#[test]
fn missing_files_are_damage_not_an_empty_database() {
    for missing in ["rows", "rows/version", "rows/0.jnl", "rows/keyspaces", "journal/segment-000000000001"] {
        let tmp = tempfile::tempdir().unwrap();
        drop(filled(tmp.path()));
        fs::rename(tmp.path().join(missing), tmp.path().join("aside")).unwrap();
        if missing.starts_with("journal") {
            // The spare one, in which nothing is.
            segments(tmp.path()).iter().for_each(|path| fs::remove_file(path).unwrap());
        }
        let error = open(tmp.path()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{missing}: {error}");
        assert_eq!(error.to_string().lines().count(), 1);
    }
}

#[test]
fn a_flipped_bit_in_the_journal_is_refused_with_one_line_and_changes_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    drop(filled(tmp.path()));
    let journal = tmp.path().join("journal/segment-000000000001");
    let good = fs::read(&journal).unwrap();
    for at in (20..8_000).step_by(1997) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&journal, bad).unwrap();
        let error = open(tmp.path()).unwrap_err();
        assert!(error.to_string().contains("is damaged: segment-000000000001 of the journal"), "{error}");
    }
    fs::write(&journal, good).unwrap();
    assert_eq!(all(&open(tmp.path()).unwrap(), Space::Data).len(), 200);
}

#[test]
fn a_directory_of_the_first_format_is_taken_over_and_its_old_journal_never_counts_again() {
    let tmp = tempfile::tempdir().unwrap();
    {
        // As a program of the first format left it: rows in fjall's own journal, no journal of ours.
        let mut dir = DataDir::open(tmp.path()).unwrap();
        let tables = Tables::open(&dir, &SMALL).unwrap();
        let rows = Space::ALL.iter().flat_map(|space| [("kept", *space), ("gone", *space)]);
        tables.write_as_format_1(rows);
        dir.finish().unwrap();
    }
    let body = "redynamo data directory\nformat 1\ncreated by 0.1.0\n";
    let format = format!("{body}checksum {:016x}\n", xxhash_rust::xxh3::xxh3_64(body.as_bytes()));
    fs::write(tmp.path().join("FORMAT"), format).unwrap();
    let store = open(tmp.path()).unwrap();
    for space in Space::ALL {
        assert_eq!(all(&store, space).len(), 2);
        store.write(vec![Change::remove(space, "gone")], Durability::Buffered).unwrap();
        put(&store, space, "kept", "new");
    }
    drop(store);
    for _ in 0..3 {
        let store = open(tmp.path()).unwrap();
        carried(&store);
        assert!(Space::ALL.iter().all(|space| all(&store, *space) == [("kept".into(), "new".into())]));
    }
}

#[test]
fn usage_says_something_of_what_was_written() {
    let tmp = tempfile::tempdir().unwrap();
    let store = filled(tmp.path());
    let usage = store.usage();
    assert!(usage.memtable_bytes > 200 * 9 && usage.journals == 1 && usage.disk_bytes >= usage.journal_bytes);
    assert_eq!(usage.journal_bytes, fs::metadata(tmp.path().join("journal/segment-000000000001")).unwrap().len());
    assert_eq!(usage.cache_limit_bytes, MIB);
}
