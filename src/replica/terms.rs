//! Terms: who coordinates each partition, as far as this replica has granted it or been told (rule 7). They never go back,
//! not even over a restart: a replica that forgot a grant would acknowledge a deposed coordinator's writes.

use std::ops::ControlFlow;

use bytes::{BufMut, Bytes};
use parking_lot::RwLock;

use super::{Intake, Replica};
use crate::base::codec::{Decoded, Reader};
use crate::base::id::{NodeId, Partition, Term};
use crate::model::Fault;
use crate::ring::partition::Partitions;
use crate::storage::{Change, Space, Store, StoreError, Ticket};

/// What keys of terms begin with, in [`Space::Node`]; the partition follows.
const PREFIX: &[u8] = b"term";
const END: &[u8] = b"tern";

/// The latest term of every partition.
pub struct Terms(RwLock<Vec<Term>>);

impl Terms {
    /// Those that the store has.
    pub fn open(store: &dyn Store, partitions: Partitions) -> Result<Terms, StoreError> {
        let mut terms = vec![Term::NONE; usize::from(partitions.count())];
        let mut odd = false;
        store.visit(Space::Node, PREFIX, END, &mut |key, raw| {
            match (partition_of(key), read(raw)) {
                (Some(at), Ok(term)) => terms.iter_mut().skip(at).take(1).for_each(|slot| *slot = term),
                _ => odd = true,
            }
            ControlFlow::Continue(())
        })?;
        if odd { Err(StoreError::Damaged("a term makes no sense".into())) } else { Ok(Terms(RwLock::new(terms))) }
    }
}

impl Replica {
    /// The latest term of a partition that is known here; [`Term::NONE`] before the first.
    pub fn term(&self, partition: Partition) -> Term {
        self.terms.0.read().get(usize::from(partition.0)).copied().unwrap_or(Term::NONE)
    }

    /// Grants what is claimed, where no later term is known; answers what is known of those partitions then: a claim was
    /// granted if it is among that. To be answered when the ticket is committed. Partitions that do not exist are left
    /// out.
    pub fn grant(&self, claims: &[(Partition, Term)]) -> Result<(Vec<(Partition, Term)>, Ticket), Fault> {
        let submitted = self.advance(claims)?;
        let terms = self.terms.0.read();
        let known =
            |(partition, _): &(Partition, Term)| terms.get(usize::from(partition.0)).map(|term| (*partition, *term));
        // What was known before may still be on its way to the store.
        Ok((claims.iter().filter_map(known).collect(), submitted.unwrap_or_else(|| self.committer.last())))
    }

    /// Takes note of a term that somebody uses; none if it is no later than what is known.
    pub fn adopt(&self, partition: Partition, term: Term) -> Result<Option<Ticket>, Fault> {
        if term <= self.term(partition) { Ok(None) } else { self.advance(&[(partition, term)]) }
    }

    fn advance(&self, claims: &[(Partition, Term)]) -> Result<Option<Ticket>, Fault> {
        self.check_takes(Intake::Removals)?;
        // Held over the submission: what is stored last is the latest.
        let mut terms = self.terms.0.write();
        let later = |(partition, term): &&(Partition, Term)| {
            terms.get(usize::from(partition.0)).is_some_and(|known| known < term)
        };
        let mut news: Vec<(Partition, Term)> = claims.iter().filter(later).copied().collect();
        // Of several of one partition the latest is stored last.
        news.sort_unstable();
        if news.is_empty() {
            return Ok(None);
        }
        let ticket = self.submit(news.iter().map(change), &[])?;
        for (partition, term) in news {
            terms.iter_mut().skip(usize::from(partition.0)).take(1).for_each(|known| *known = term);
        }
        Ok(Some(ticket))
    }
}

fn change((partition, term): &(Partition, Term)) -> Change {
    let mut key = PREFIX.to_vec();
    key.put_u16(partition.0);
    let mut value = Vec::with_capacity(16);
    value.put_u64(term.number);
    value.put_u64(term.node.0);
    Change::put(Space::Node, key, value)
}

fn partition_of(key: &[u8]) -> Option<usize> {
    let raw: [u8; 2] = key.strip_prefix(PREFIX)?.try_into().ok()?;
    Some(usize::from(u16::from_be_bytes(raw)))
}

fn read(raw: &[u8]) -> Decoded<Term> {
    let mut reader = Reader::new(Bytes::copy_from_slice(raw));
    let term = Term { number: reader.u64()?, node: NodeId(reader.u64()?) };
    reader.finish()?;
    Ok(term)
}
