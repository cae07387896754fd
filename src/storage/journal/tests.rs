//! The journal, whole and damaged.

use super::*;
use crate::storage::Space;
use crate::storage::overlay::Row;

const BOOT: u128 = 7;

/// A journal's directory in a data directory, and what goes into it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::create_dir(place.dir()).unwrap();
        place
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    fn begin(&self, found: &Recovered) -> Journal {
        Journal::begin(&self.dir(), BOOT, found).unwrap()
    }

    fn recover(&self) -> Result<Recovered, OpenError> {
        recover(&self.dir(), Marker::default(), BOOT)
    }

    fn segment(&self, number: u64) -> PathBuf {
        path_of(&self.dir(), number)
    }
}

/// Appends the frames `numbers`: one row each, named so.
fn append(journal: &Journal, numbers: std::ops::Range<u8>) {
    for number in numbers {
        append_one(journal, number).unwrap();
    }
}

fn append_one(journal: &Journal, number: u8) -> io::Result<()> {
    let change = Change::put(Space::Data, vec![number], vec![number; 3]);
    journal.append(&mut journal.writer(), &[change]).map(drop)
}

fn rotate(journal: &Journal) -> Marker {
    journal.rotate(&mut journal.writer()).unwrap().0
}

/// The numbers of all rows, each of which must be whole.
fn rows(found: &Recovered) -> Vec<u8> {
    let rows = found.sealed.iter().flat_map(|sealed| sealed.overlay.range(Space::Data, b"", b""));
    let number = |row: Row| {
        assert_eq!(row.value().unwrap(), vec![row.key()[0]; 3]);
        row.key()[0]
    };
    rows.map(number).collect()
}

fn is_damage(found: Result<Recovered, OpenError>) -> bool {
    match found {
        Err(error @ OpenError::Damaged { .. }) => {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
            true
        }
        _ => false,
    }
}

#[test]
fn what_was_appended_is_read_back_over_segments_and_lives() {
    let place = Place::new();
    let journal = place.begin(&Recovered::none());
    append(&journal, 0..3);
    rotate(&journal);
    append(&journal, 3..5);
    journal.prepare().unwrap();
    journal.prepare().unwrap();
    assert_eq!(rotate(&journal), Marker { segment: 2, sequence: 5 });
    drop(journal);
    let found = place.recover().unwrap();
    assert_eq!((rows(&found), found.sealed.len(), found.notice.is_none()), ((0..5).collect(), 2, true));
    let journal = place.begin(&found);
    found.clean_up().unwrap();
    append(&journal, 5..7);
    let again = place.recover().unwrap();
    assert_eq!((rows(&again), again.last), ((0..7).collect(), 7));
    assert_eq!(again.sealed.last().unwrap().marker, Marker { segment: 4, sequence: 7 });
}

#[test]
fn a_spare_segment_that_comes_too_late_is_not_used() {
    let place = Place::new();
    let journal = place.begin(&Recovered::none());
    journal.prepare().unwrap();
    append(&journal, 0..1);
    rotate(&journal);
    append(&journal, 1..2);
    rotate(&journal);
    append(&journal, 2..3);
    assert_eq!(rows(&place.recover().unwrap()), [0, 1, 2]);
    assert_eq!(segment_files(&place.dir()).unwrap().len(), 3);
}

#[test]
fn a_journal_cut_anywhere_has_every_whole_frame_before_the_cut() {
    let place = Place::new();
    let journal = place.begin(&Recovered::none());
    let mut ends = vec![journal.writer().len() as usize];
    for number in 0..5 {
        append(&journal, number..number + 1);
        ends.push(journal.writer().len() as usize);
    }
    let good = fs::read(place.segment(1)).unwrap();
    assert_eq!(good.len(), ends[5]);
    for at in 0..good.len() {
        fs::write(place.segment(1), &good[..at]).unwrap();
        let found = place.recover();
        if at < HEADER_BYTES {
            assert!(is_damage(found), "cut at {at}");
            continue;
        }
        let whole = ends.iter().filter(|end| **end <= at).count() as u8 - 1;
        assert_eq!(rows(&found.unwrap()), (0..whole).collect::<Vec<_>>(), "cut at {at}");
        // The torn tail is gone, so that the next segment follows on.
        assert_eq!(fs::metadata(place.segment(1)).unwrap().len() as usize, ends[usize::from(whole)]);
    }
}

#[test]
fn a_flipped_bit_is_a_torn_tail_at_the_end_and_damage_anywhere_else() {
    let place = Place::new();
    let journal = place.begin(&Recovered::none());
    append(&journal, 0..4);
    let last = journal.writer().len() as usize;
    append(&journal, 4..5);
    let good = fs::read(place.segment(1)).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(place.segment(1), &bad).unwrap();
        if at < last {
            assert!(is_damage(place.recover()), "byte {at}");
            assert_eq!(fs::read(place.segment(1)).unwrap(), bad, "a refusal changes nothing");
        } else {
            assert_eq!(rows(&place.recover().unwrap()), [0, 1, 2, 3], "byte {at}");
        }
    }
}

#[test]
fn a_power_cut_may_take_what_was_not_synced_and_nothing_else() {
    let place = Place::new();
    let journal = place.begin(&Recovered::none());
    append(&journal, 0..2);
    journal.sync().unwrap();
    let synced = journal.writer().len() as usize;
    append(&journal, 2..4);
    rotate(&journal);
    append(&journal, 4..5);
    let good = [1, 2].map(|number| fs::read(place.segment(number)).unwrap());
    let ends = good[0].len();
    for at in HEADER_BYTES..ends {
        [1, 2].iter().zip(&good).for_each(|(number, raw)| fs::write(place.segment(*number), raw).unwrap());
        let mut bad = good[0].clone();
        bad[at] ^= 0x40;
        fs::write(place.segment(1), &bad).unwrap();
        assert!(is_damage(place.recover()), "byte {at}, in the same run of the machine");
        let found = recover(&place.dir(), Marker::default(), BOOT + 1);
        if at < synced {
            assert!(is_damage(found), "byte {at} had been synced");
            continue;
        }
        let found = found.unwrap();
        assert!(found.notice.as_ref().unwrap().contains("had not been synced"));
        assert!([vec![0, 1], vec![0, 1, 2]].contains(&rows(&found)), "byte {at}");
        assert_eq!(rows(&place.recover().unwrap()), rows(&found), "once cut it stays so");
    }
}

#[test]
fn frames_in_the_order_of_their_numbers_or_none() {
    let make = || {
        let place = Place::new();
        let journal = place.begin(&Recovered::none());
        for number in 0..4 {
            append(&journal, number..number + 1);
            rotate(&journal);
        }
        place
    };
    for missing in 1..4 {
        let place = make();
        fs::remove_file(place.segment(missing)).unwrap();
        assert!(is_damage(place.recover()), "segment {missing} is missing");
    }
    let place = make();
    fs::copy(place.segment(1), place.segment(2)).unwrap();
    assert!(is_damage(place.recover()), "a segment under another's name");
    let place = make();
    let raw = fs::read(place.segment(2)).unwrap();
    fs::write(place.segment(2), &raw[..raw.len() - 1]).unwrap();
    assert!(is_damage(place.recover()), "a torn tail that is not at the end");
    fs::remove_dir_all(place.dir()).unwrap();
    fs::create_dir(place.dir()).unwrap();
    assert!(is_damage(place.recover()), "nothing is left");
}

#[test]
fn what_the_tables_have_is_not_read_again_even_if_it_is_damaged() {
    let place = Place::new();
    let journal = place.begin(&Recovered::none());
    append(&journal, 0..2);
    let marker = rotate(&journal);
    append(&journal, 2..3);
    fs::write(place.segment(1), "rubbish").unwrap();
    assert!(is_damage(place.recover()));
    let found = recover(&place.dir(), marker, BOOT).unwrap();
    assert_eq!(rows(&found), [2]);
    found.clean_up().unwrap();
    assert!(!place.segment(1).exists());
    assert!(is_damage(recover(&place.dir(), Marker { segment: 1, sequence: 1 }, BOOT)), "frame 2 is in no place");
}

#[test]
fn a_frame_of_which_a_part_was_written_is_not_there() {
    let place = Place::new();
    let journal = place.begin(&Recovered::none());
    append(&journal, 0..2);
    journal.writer().break_with(File::options().write(true).open("/dev/full").unwrap());
    assert!(append_one(&journal, 2).is_err());
    assert!(journal.sync().is_err());
    let whole = fs::read(place.segment(1)).unwrap();
    let half = [&whole[..], &whole[HEADER_BYTES..HEADER_BYTES + 40]].concat();
    fs::write(place.segment(1), half).unwrap();
    let found = place.recover().unwrap();
    assert_eq!(rows(&found), [0, 1]);
    let journal = place.begin(&found);
    append(&journal, 2..3);
    assert_eq!(rows(&place.recover().unwrap()), [0, 1, 2]);
}

#[test]
fn what_looks_like_a_frame_inside_of_a_value_is_none() {
    let place = Place::new();
    let journal = place.begin(&Recovered::none());
    append(&journal, 0..1);
    // A client that has seen another node's journal puts a whole frame of it into a value.
    let frame = fs::read(place.segment(1)).unwrap()[HEADER_BYTES..].to_vec();
    let other = Place::new();
    let journal = other.begin(&Recovered::none());
    let change = Change::put(Space::Data, "k", frame);
    journal.append(&mut journal.writer(), &[change]).unwrap();
    let raw = fs::read(other.segment(1)).unwrap();
    fs::write(other.segment(1), &raw[..raw.len() - 1]).unwrap();
    assert!(rows(&other.recover().unwrap()).is_empty());
}
