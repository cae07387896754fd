//! A delta: what one command, script or repair changed in a region. The same value is replicated, hinted and repaired.

use bytes::{BufMut, Bytes};

use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes, put_varint};
use crate::base::id::{Db, Partition, Region};
use crate::causality::dot::{put_dots, read_dots};
use crate::causality::{Clock, Dot, Payload, RowChange, Version};

/// Changes of one region, applied together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Where.
    pub region: Region,
    /// Everything that this clock contains goes first (FLUSHDB): rule 2.
    pub clear: Option<Clock>,
    /// Encoded row key and its change.
    pub rows: Vec<(Bytes, RowChange)>,
    /// Dots of versions of these rows that were seen and left where they are (an increment's base, what a deadline is
    /// given to): beside them the change is in no conflict. Filled for conditional commands only.
    pub kept: Vec<Dot>,
}

impl Delta {
    /// A delta that changes nothing yet.
    pub fn new(region: Region) -> Self {
        Delta { region, clear: None, rows: Vec::new(), kept: Vec::new() }
    }

    /// A delta that changes one row.
    pub fn of_row(region: Region, row: Bytes, change: RowChange) -> Self {
        Delta { rows: vec![(row, change)], ..Delta::new(region) }
    }

    /// Whether it consists of increments. Those are never withdrawn: they count wherever they stand in the order of
    /// things, and only what was replied is to be computed again.
    pub fn only_runs(&self) -> bool {
        self.clear.is_none() && !self.rows.is_empty() && self.rows.iter().all(|(_, change)| adds_runs(change))
    }

    /// True when it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.clear.is_none() && self.rows.is_empty()
    }

    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        let change = |change: &RowChange| change.new.iter().map(|version| version.payload.data_len()).sum::<usize>();
        self.rows.iter().map(|(row, changed)| ROW_BYTES + row.len() + change(changed)).sum()
    }

    /// Appends the delta.
    pub fn put(&self, out: &mut impl BufMut) {
        put_region(self.region, out);
        out.put_u8(self.clear.is_some().into());
        if let Some(clear) = &self.clear {
            clear.put(out);
        }
        put_varint(out, self.rows.len() as u64);
        for (row, change) in &self.rows {
            put_bytes(out, row);
            change.put(out);
        }
        put_dots(out, &self.kept);
    }

    /// Reads what [`Delta::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Delta> {
        let region = read_region(reader)?;
        let clear = match reader.u8()? {
            0 => None,
            1 => Some(Clock::read(reader)?),
            _ => return Err(DecodeError::Invalid("delta")),
        };
        let rows =
            (0..reader.count()?).map(|_| Ok((reader.bytes()?, RowChange::read(reader)?))).collect::<Decoded<_>>()?;
        Ok(Delta { region, clear, rows, kept: read_dots(reader)? })
    }
}

/// What a row takes in a delta beside its key and its data.
const ROW_BYTES: usize = 64;

/// Whether a change adds to counters and sets nothing.
pub(super) fn adds_runs(change: &RowChange) -> bool {
    let run = |version: &Version| matches!(version.payload, Payload::Run(_));
    let run_or_void = |version: &Version| run(version) || matches!(version.payload, Payload::Void(_));
    change.new.iter().any(run) && change.new.iter().all(run_or_void)
}

/// Appends database (1 byte) and partition (2 bytes).
pub fn put_region(region: Region, out: &mut impl BufMut) {
    out.put_u8(region.db.0);
    out.put_u16(region.partition.0);
}

/// Reads what [`put_region`] wrote. Whether the partition exists is for the caller to check.
pub fn read_region(reader: &mut Reader) -> Decoded<Region> {
    Ok(Region { db: Db(reader.u8()?), partition: Partition(reader.u16()?) })
}
