//! A delta: what one command, script or repair changed in a region. The same value is replicated, hinted and repaired.

use bytes::{BufMut, Bytes};

use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes, put_varint};
use crate::base::id::{Db, Partition, Region};
use crate::causality::{Clock, RowChange};

/// Changes of one region, applied together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Where.
    pub region: Region,
    /// Everything that this clock contains goes first (FLUSHDB): rule 2.
    pub clear: Option<Clock>,
    /// Encoded row key and its change.
    pub rows: Vec<(Bytes, RowChange)>,
}

impl Delta {
    /// A delta that changes nothing yet.
    pub fn new(region: Region) -> Self {
        Delta { region, clear: None, rows: Vec::new() }
    }

    /// True when it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.clear.is_none() && self.rows.is_empty()
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
        Ok(Delta { region, clear, rows })
    }
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
