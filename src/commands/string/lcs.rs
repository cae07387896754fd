//! LCS: the longest common subsequence of two strings, by the textbook table. Where several are as long, the walk back
//! through the table takes the same turns as Redis', so that the answers agree.

use crate::base::limits::MAX_STRING_BYTES;
use crate::commands::call::Call;
use crate::commands::errors::{Answer, CommandError, SYNTAX};
use crate::model::{Fault, View};
use crate::resp::Reply;

pub(super) fn lcs(call: &Call, view: &mut View) -> Answer {
    let text = |view: &mut View, key| match view.text(key) {
        Err(Fault::WrongKind) => Err("ERR The specified keys must contain string values".into()),
        found => found.map(Option::unwrap_or_default).map_err(CommandError::from),
    };
    let (one, other) = (text(view, call.arg(1))?, text(view, call.arg(2))?);
    let options = Options::parse(call)?;
    let table = Table::of(&one, &other)?;
    if options.len {
        return Ok(number(table.longest()));
    }
    let matches = table.matches(&one, &other);
    if options.idx {
        let shown = matches.iter().filter(|range| range.len >= options.min_match_len);
        let shown = shown.map(|range| range.reply(options.with_match_len)).collect();
        return Ok(Reply::map([("matches", Reply::Array(shown)), ("len", number(table.longest()))]));
    }
    // The walk goes backwards.
    let parts = matches.iter().rev().filter_map(|range| one.get(range.one..range.one + range.len));
    Ok(Reply::bulk(parts.collect::<Vec<_>>().concat()))
}

#[derive(Default)]
struct Options {
    len: bool,
    idx: bool,
    min_match_len: usize,
    with_match_len: bool,
}

impl Options {
    fn parse(call: &Call) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut rest = call.cursor(3);
        while let Some(word) = rest.next_arg() {
            if word.eq_ignore_ascii_case(b"IDX") {
                options.idx = true;
            } else if word.eq_ignore_ascii_case(b"LEN") {
                options.len = true;
            } else if word.eq_ignore_ascii_case(b"WITHMATCHLEN") {
                options.with_match_len = true;
            } else if word.eq_ignore_ascii_case(b"MINMATCHLEN") {
                options.min_match_len = usize::try_from(rest.expect_int()?).unwrap_or(0);
            } else {
                return Err(SYNTAX.into());
            }
        }
        if options.len && options.idx {
            return Err("ERR If you want both the length and indexes, please just use IDX.".into());
        }
        Ok(options)
    }
}

/// A run of bytes that both strings have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Match {
    one: usize,
    other: usize,
    len: usize,
}

impl Match {
    fn reply(&self, with_len: bool) -> Reply {
        let range = |start: usize| Reply::array([number(start), number((start + self.len).saturating_sub(1))]);
        let mut parts = vec![range(self.one), range(self.other)];
        if with_len {
            parts.push(number(self.len));
        }
        Reply::Array(parts)
    }
}

/// How long the longest common subsequence of every two beginnings is.
struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    fn of(one: &[u8], other: &[u8]) -> Result<Table, CommandError> {
        let mut table = Table { cells: zeros(one.len(), other.len())?, width: other.len() + 1 };
        for (i, byte) in one.iter().enumerate() {
            let (above, row) = table.cells.split_at_mut((i + 1) * table.width);
            let above = above.get(i * table.width..).unwrap_or_default();
            let mut left = 0;
            // Each cell together with the one above it and the one above to the left.
            for ((cell, above), other) in row.iter_mut().skip(1).zip(above.windows(2)).zip(other) {
                left = if byte == other { above[0] + 1 } else { above[1].max(left) };
                *cell = left;
            }
        }
        Ok(table)
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells.get(i * self.width + j).copied().unwrap_or(0)
    }

    fn longest(&self) -> usize {
        self.cells.last().map_or(0, |len| *len as usize)
    }

    /// The common runs, last one first.
    fn matches(&self, one: &[u8], other: &[u8]) -> Vec<Match> {
        let mut found: Vec<Match> = Vec::new();
        let (mut i, mut j) = (one.len(), other.len());
        while let (Some(a), Some(b)) = (i.checked_sub(1), j.checked_sub(1)) {
            if one.get(a) == other.get(b) {
                match found.last_mut() {
                    Some(last) if last.one == i && last.other == j => {
                        *last = Match { one: a, other: b, len: last.len + 1 }
                    }
                    _ => found.push(Match { one: a, other: b, len: 1 }),
                }
                (i, j) = (a, b);
            } else if self.at(a, j) > self.at(i, b) {
                i = a;
            } else {
                j = b;
            }
        }
        found
    }
}

fn zeros(one: usize, other: usize) -> Result<Vec<u32>, CommandError> {
    const MOST: usize = MAX_STRING_BYTES / size_of::<u32>();
    let cells = (one + 1).checked_mul(other + 1).filter(|cells| *cells <= MOST);
    let cells = cells.ok_or("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")?;
    let mut zeros = Vec::new();
    zeros
        .try_reserve_exact(cells)
        .map_err(|_| "ERR Insufficient memory, failed allocating transient memory for LCS")?;
    zeros.resize(cells, 0);
    Ok(zeros)
}

fn number(value: usize) -> Reply {
    Reply::Int(i64::try_from(value).unwrap_or(i64::MAX))
}
