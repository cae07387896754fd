//! Times as clients give them: `EX`, `PX`, `EXAT`, `PXAT`, and the arguments of the EXPIRE family.

use super::call::int;
use super::errors::{CommandError, invalid_expire};
use super::spec::Spec;

/// How a number is to be read as a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// In milliseconds.
    unit: i64,
    /// Since the epoch; else from now.
    absolute: bool,
}

impl When {
    /// Seconds from now.
    pub const EX: When = When { unit: 1000, absolute: false };
    /// Milliseconds from now.
    pub const PX: When = When { unit: 1, absolute: false };
    /// Seconds since the epoch.
    pub const EXAT: When = When { unit: 1000, absolute: true };
    /// Milliseconds since the epoch.
    pub const PXAT: When = When { unit: 1, absolute: true };

    /// The option that `word` is, in any case.
    pub fn option(word: &[u8]) -> Option<When> {
        let options = [(&b"EX"[..], When::EX), (b"PX", When::PX), (b"EXAT", When::EXAT), (b"PXAT", When::PXAT)];
        options.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, when)| when)
    }

    /// The time that `arg` is, in milliseconds since the epoch; `now` in the same. It may be negative.
    ///
    /// # Errors
    /// Not an integer, or beyond the range of 64-bit milliseconds.
    pub fn time(self, arg: &[u8], now: u64, spec: &Spec) -> Result<i64, CommandError> {
        let scaled = int(arg)?.checked_mul(self.unit);
        let base = if self.absolute { 0 } else { i64::try_from(now).unwrap_or(i64::MAX) };
        scaled.and_then(|ms| ms.checked_add(base)).ok_or_else(|| invalid_expire(&spec.full_name()))
    }

    /// The deadline that `arg` is, for commands that take no number below one.
    ///
    /// # Errors
    /// As for [`When::time`], and for zero and less.
    pub fn deadline(self, arg: &[u8], now: u64, spec: &Spec) -> Result<u64, CommandError> {
        let invalid = || invalid_expire(&spec.full_name());
        if int(arg)? <= 0 {
            return Err(invalid());
        }
        u64::try_from(self.time(arg, now, spec)?).map_err(|_| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::find;

    const NOW: u64 = 1_000_000;

    #[test]
    fn a_number_is_read_in_its_unit_from_now_or_from_the_epoch() {
        let spec = find(b"SET").unwrap();
        for (when, time) in [(When::EX, 1_005_000), (When::PX, 1_000_005), (When::EXAT, 5_000), (When::PXAT, 5)] {
            assert_eq!(when.time(b"5", NOW, spec), Ok(time));
            assert_eq!(when.deadline(b"5", NOW, spec), Ok(time as u64));
        }
        assert_eq!(When::EX.time(b"-2000", NOW, spec), Ok(-1_000_000));
    }

    #[test]
    fn what_does_not_fit_the_clock_is_refused_in_the_commands_name() {
        let spec = find(b"GETEX").unwrap();
        let invalid = Err(invalid_expire("getex"));
        for (when, arg) in
            [(When::EX, "9223372036854775807"), (When::PX, "9223372036854775807"), (When::EXAT, "9223372036854776")]
        {
            assert_eq!(when.deadline(arg.as_bytes(), NOW, spec), invalid, "{arg}");
        }
        for arg in ["0", "-1", "-9223372036854775808"] {
            assert_eq!(When::PXAT.deadline(arg.as_bytes(), NOW, spec), invalid, "{arg}");
        }
        assert!(When::EX.time(b"-9223372036854775808", NOW, spec).is_err());
    }
}
