//! Requests and responses.

use bytes::{BufMut, Bytes, BytesMut};

use super::news::{put_listening, put_news, read_listening, read_news};
use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes, put_varint};
use crate::base::id::{Db, NodeId, Partition, Region, Term};
use crate::base::kind::Kind;
use crate::causality::cell::{Cell, RowAnswer, RowChange};
use crate::causality::dot::{put_dots, read_dots};
use crate::causality::{Clock, Dot};
use crate::cluster::{Digest, Health, Membership};
use crate::commands::pubsub::{Listening, News};
use crate::commands::session::Quorum;
use crate::model::Delta;
use crate::model::delta::{put_region, read_region};
use crate::replica::{Difference, LeafHashes, Snapshot, Tally};
use crate::resp::Reply;

/// What one node asks of another.
#[derive(Debug, Clone)]
pub enum Request {
    /// I am here; this is the digest of the members I know, and how I am.
    Ping {
        /// Digest of the membership.
        digest: Digest,
        /// How it is.
        health: Health,
        /// It takes whom it asks for live.
        sees_you: bool,
    },
    /// These are the members I know.
    Members(Membership),
    /// A command whose coordinator you are, as it came from the client.
    Execute {
        /// How often it was forwarded, this time included.
        hops: u8,
        /// The client's database.
        db: Db,
        /// The client's quorums.
        quorum: Quorum,
        /// Name and arguments.
        args: Vec<Bytes>,
    },
    /// A delta of a region that you own.
    Apply {
        /// What changed.
        delta: Delta,
        /// The coordinator's term; none where it does not matter (repairs, hints, what has expired).
        term: Option<Term>,
        /// Whether live versions that it did not see are to be told.
        conditional: bool,
    },
    /// A delta of a region whose `owner` is away: apply it, and keep it as a hint.
    Keep {
        /// Whom it is for.
        owner: NodeId,
        /// What changed.
        delta: Delta,
        /// Whether live versions that it did not see are to be told.
        conditional: bool,
    },
    /// I claim these terms: grant them unless you know later ones, and say what you know then.
    Claim(Vec<(Partition, Term)>),
    /// Pull this region from me: I am about to forget it.
    Pull(Region),
    /// When did you last hear of this node?
    Probe {
        /// Which.
        node: NodeId,
        /// Its last life that is meant: whoever knows of a later one has heard nothing of it.
        life: u64,
    },
    /// These are the dots of my cell of a row: what do I lack, what of it is gone, what have you not seen?
    Row {
        /// Where.
        region: Region,
        /// Encoded row key.
        row: Bytes,
        /// My dots.
        dots: Vec<Dot>,
    },
    /// Roots of your regions of these partitions, with a hash of their clocks.
    Roots(Vec<Partition>),
    /// What you know of a region, as of now: the beginning of a sync.
    Snapshot(Region),
    /// Leaf hashes under these branches of a region's tree.
    Leaves {
        /// Where.
        region: Region,
        /// Numbers of branches.
        branches: Vec<u8>,
    },
    /// Your rows of these leaves that I do not have as you have them.
    LeafRows {
        /// Where.
        region: Region,
        /// What I have of each.
        leaves: Vec<LeafHashes>,
        /// Encoded row key to begin at in the first; empty for its first.
        from: Bytes,
        /// Commands wait for it.
        settling: bool,
    },
    /// Is the region still the one that I began to sync with?
    Incarnation(Region),
    /// Visible keys of a region from a token on.
    Scan {
        /// Where.
        region: Region,
        /// First token.
        from: u64,
        /// About how many.
        count: u32,
        /// Only those that are of this kind.
        of: Option<Kind>,
    },
    /// Local facts of regions.
    Tally(Vec<Region>),
    /// Clear these regions, as their coordinator.
    Clear(Vec<Region>),
    /// Have you seen this dot; and, if asked for, is it on your disk?
    Has {
        /// Where.
        region: Region,
        /// The dot.
        dot: Dot,
        /// Wait until it is synced.
        synced: bool,
    },
    /// A message for your subscribers.
    Publish(News),
    /// Who listens at your node?
    Listening(Listening),
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Response {
    /// The answer to a ping: the same about me.
    Pong {
        /// Digest of the membership.
        digest: Digest,
        /// How it is.
        health: Health,
    },
    /// The members that I know now.
    Members(Membership),
    /// The reply for the client, and the last dot that the command gave.
    Reply {
        /// As the client is to see it.
        reply: Reply,
        /// For WAIT.
        wrote: Option<(Region, Dot)>,
    },
    /// Done, and stored.
    Done,
    /// Done, and stored, by a node that counts in no quorum for now; or not answered for that reason.
    Uncounted,
    /// Done, and stored, but a later term is known.
    Deposed(Term),
    /// Done, and stored, but the row has live versions that the delta did not see.
    Conflict,
    /// The latest terms known of these partitions.
    Terms(Vec<(Partition, Term)>),
    /// How many milliseconds ago the node answered; none if it never did.
    Heard(Option<u64>),
    /// Not done, and why.
    Refused(String),
    /// The answer about a row.
    Row(RowAnswer),
    /// What is held of some partitions.
    Roots {
        /// Regions with root and clock hash.
        regions: Vec<(Region, u128, u64)>,
        /// This node counts in quorums: it holds all that it ever acknowledged.
        counted: bool,
    },
    /// A region's state.
    Snapshot(Snapshot),
    /// Leaf hashes, in the order of the branches asked for.
    Leaves(Vec<u128>),
    /// Rows, and where to go on.
    LeafRows(Difference),
    /// A number.
    Number(u64),
    /// Keys with their tokens, and the token to go on from.
    Keys {
        /// Token and key.
        keys: Vec<(u64, Bytes)>,
        /// Where to go on, if there may be more.
        next: Option<u64>,
    },
    /// Sums of local facts.
    Tally(Tally),
}

impl Request {
    /// Appends number and content.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Request::Ping { digest, health, sees_you } => {
                out.put_u8(1);
                digest.put(out);
                health.put(out);
                out.put_u8((*sees_you).into());
            }
            Request::Members(members) => {
                out.put_u8(2);
                members.put(out);
            }
            Request::Execute { hops, db, quorum, args } => {
                out.put_u8(3);
                out.put_u8(*hops);
                out.put_u8(db.0);
                put_quorum(*quorum, out);
                put_all(out, args, |out, arg| put_bytes(out, arg));
            }
            Request::Apply { delta, term, conditional } => {
                out.put_u8(4);
                put_option(out, term.as_ref(), put_term);
                out.put_u8((*conditional).into());
                delta.put(out);
            }
            Request::Row { region, row, dots } => {
                out.put_u8(5);
                put_region(*region, out);
                put_bytes(out, row);
                put_dots(out, dots);
            }
            Request::Roots(partitions) => {
                out.put_u8(6);
                put_all(out, partitions, |out, partition| out.put_u16(partition.0));
            }
            Request::Snapshot(region) => {
                out.put_u8(7);
                put_region(*region, out);
            }
            Request::Leaves { region, branches } => {
                out.put_u8(8);
                put_region(*region, out);
                put_bytes(out, branches);
            }
            Request::LeafRows { region, leaves, from, settling } => {
                out.put_u8(9);
                put_region(*region, out);
                put_all(out, leaves, |out, LeafHashes { leaf, hashes }| {
                    out.put_u16(*leaf);
                    put_all(out, hashes, |out, hash| out.put_u128(*hash));
                });
                put_bytes(out, from);
                out.put_u8((*settling).into());
            }
            Request::Incarnation(region) => {
                out.put_u8(10);
                put_region(*region, out);
            }
            Request::Scan { region, from, count, of } => {
                out.put_u8(11);
                put_region(*region, out);
                out.put_u64(*from);
                out.put_u32(*count);
                out.put_u8(of.map_or(u8::MAX, |kind| kind as u8));
            }
            Request::Tally(regions) => {
                out.put_u8(12);
                put_all(out, regions, |out, region| put_region(*region, out));
            }
            Request::Clear(regions) => {
                out.put_u8(13);
                put_all(out, regions, |out, region| put_region(*region, out));
            }
            Request::Has { region, dot, synced } => {
                out.put_u8(14);
                put_region(*region, out);
                dot.put(out);
                out.put_u8((*synced).into());
            }
            Request::Keep { owner, delta, conditional } => {
                out.put_u8(15);
                out.put_u64(owner.0);
                out.put_u8((*conditional).into());
                delta.put(out);
            }
            Request::Claim(terms) => {
                out.put_u8(16);
                put_terms(out, terms);
            }
            Request::Pull(region) => {
                out.put_u8(17);
                put_region(*region, out);
            }
            Request::Probe { node, life } => {
                out.put_u8(18);
                out.put_u64(node.0);
                out.put_u64(*life);
            }
            Request::Publish(news) => {
                out.put_u8(32);
                put_news(news, out);
            }
            Request::Listening(asked) => {
                out.put_u8(33);
                put_listening(asked, out);
            }
        }
    }

    /// Reads what [`Request::put`] wrote.
    pub fn read(body: Bytes) -> Decoded<Request> {
        let mut reader = Reader::new(body);
        let reader = &mut reader;
        let request = match reader.u8()? {
            1 => Request::Ping {
                digest: Digest::read(reader)?,
                health: Health::read(reader)?,
                sees_you: reader.u8()? != 0,
            },
            2 => Request::Members(Membership::read(reader)?),
            3 => Request::Execute {
                hops: reader.u8()?,
                db: Db(reader.u8()?),
                quorum: read_quorum(reader)?,
                args: read_all(reader, Reader::bytes)?,
            },
            4 => Request::Apply {
                term: read_option(reader, read_term)?,
                conditional: reader.u8()? != 0,
                delta: Delta::read(reader)?,
            },
            5 => Request::Row { region: read_region(reader)?, row: reader.bytes()?, dots: read_dots(reader)? },
            6 => Request::Roots(read_all(reader, |reader| reader.u16().map(Partition))?),
            7 => Request::Snapshot(read_region(reader)?),
            8 => Request::Leaves { region: read_region(reader)?, branches: reader.bytes()?.to_vec() },
            9 => Request::LeafRows {
                region: read_region(reader)?,
                leaves: read_all(reader, |reader| {
                    Ok(LeafHashes { leaf: reader.u16()?, hashes: read_all(reader, Reader::u128)? })
                })?,
                from: reader.bytes()?,
                settling: reader.u8()? != 0,
            },
            10 => Request::Incarnation(read_region(reader)?),
            11 => Request::Scan {
                region: read_region(reader)?,
                from: reader.u64()?,
                count: reader.u32()?,
                of: Some(reader.u8()?).filter(|kind| *kind != u8::MAX).map(read_kind).transpose()?,
            },
            12 => Request::Tally(read_all(reader, read_region)?),
            13 => Request::Clear(read_all(reader, read_region)?),
            14 => Request::Has { region: read_region(reader)?, dot: Dot::read(reader)?, synced: reader.u8()? != 0 },
            15 => Request::Keep {
                owner: NodeId(reader.u64()?),
                conditional: reader.u8()? != 0,
                delta: Delta::read(reader)?,
            },
            16 => Request::Claim(read_all(reader, read_claim)?),
            17 => Request::Pull(read_region(reader)?),
            18 => Request::Probe { node: NodeId(reader.u64()?), life: reader.u64()? },
            32 => Request::Publish(read_news(reader)?),
            33 => Request::Listening(read_listening(reader)?),
            _ => return Err(DecodeError::Unknown("request")),
        };
        if reader.remaining() == 0 { Ok(request) } else { Err(DecodeError::Trailing) }
    }
}

impl Response {
    /// Appends number and content.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Response::Pong { digest, health } => {
                out.put_u8(1);
                digest.put(out);
                health.put(out);
            }
            Response::Members(members) => {
                out.put_u8(2);
                members.put(out);
            }
            Response::Reply { reply, wrote } => {
                out.put_u8(3);
                out.put_u8(wrote.is_some().into());
                if let Some((region, dot)) = wrote {
                    put_region(*region, out);
                    dot.put(out);
                }
                reply.put(out);
            }
            Response::Done => out.put_u8(4),
            Response::Refused(why) => {
                out.put_u8(5);
                put_bytes(out, why.as_bytes());
            }
            Response::Row(answer) => {
                out.put_u8(6);
                answer.change.put(out);
                put_dots(out, &answer.unseen);
                out.put_u128(answer.digest);
            }
            Response::Roots { regions, counted } => {
                out.put_u8(7);
                out.put_u8((*counted).into());
                put_all(out, regions, |out, (region, root, clock)| {
                    put_region(*region, out);
                    out.put_u128(*root);
                    out.put_u64(*clock);
                });
            }
            Response::Snapshot(snapshot) => {
                out.put_u8(8);
                put_snapshot(snapshot, out);
            }
            Response::Leaves(hashes) => {
                out.put_u8(9);
                put_all(out, hashes, |out, hash| out.put_u128(*hash));
            }
            Response::LeafRows(Difference { rows, lacking, next, incarnation }) => {
                out.put_u8(10);
                put_all(out, rows, |out, (row, cell)| {
                    put_bytes(out, row);
                    cell.put(out);
                });
                put_all(out, lacking, |out, hash| out.put_u128(*hash));
                put_option(out, next.as_ref(), |out, (place, row)| {
                    out.put_u16(*place);
                    put_bytes(out, row);
                });
                out.put_u64(*incarnation);
            }
            Response::Number(number) => {
                out.put_u8(11);
                out.put_u64(*number);
            }
            Response::Keys { keys, next } => {
                out.put_u8(12);
                put_all(out, keys, |out, (token, key)| {
                    out.put_u64(*token);
                    put_bytes(out, key);
                });
                put_option(out, next.as_ref(), |out, token| out.put_u64(*token));
            }
            Response::Tally(tally) => {
                out.put_u8(13);
                out.put_u64(tally.keys);
                out.put_u64(tally.expiring);
                out.put_u64(tally.voids);
                out.put_u64(tally.next_deadline);
                out.put_u64(tally.siblings);
            }
            Response::Uncounted => out.put_u8(14),
            Response::Deposed(term) => {
                out.put_u8(15);
                put_term(out, term);
            }
            Response::Conflict => out.put_u8(16),
            Response::Terms(terms) => {
                out.put_u8(17);
                put_terms(out, terms);
            }
            Response::Heard(ago) => {
                out.put_u8(18);
                put_option(out, ago.as_ref(), |out, ago| out.put_u64(*ago));
            }
        }
    }

    /// Reads what [`Response::put`] wrote.
    pub fn read(body: Bytes) -> Decoded<Response> {
        let mut reader = Reader::new(body);
        let reader = &mut reader;
        let response = match reader.u8()? {
            1 => Response::Pong { digest: Digest::read(reader)?, health: Health::read(reader)? },
            2 => Response::Members(Membership::read(reader)?),
            3 => {
                let wrote = read_option(reader, |reader| Ok((read_region(reader)?, Dot::read(reader)?)))?;
                Response::Reply { reply: Reply::read(reader)?, wrote }
            }
            4 => Response::Done,
            5 => Response::Refused(reader.text()?),
            6 => {
                let (change, unseen, digest) = (RowChange::read(reader)?, read_dots(reader)?, reader.u128()?);
                Response::Row(RowAnswer { change, unseen, digest })
            }
            7 => Response::Roots {
                counted: reader.u8()? != 0,
                regions: read_all(reader, |reader| Ok((read_region(reader)?, reader.u128()?, reader.u64()?)))?,
            },
            8 => Response::Snapshot(read_snapshot(reader)?),
            9 => Response::Leaves(read_all(reader, Reader::u128)?),
            10 => Response::LeafRows(Difference {
                rows: read_all(reader, |reader| Ok((reader.bytes()?, Cell::read(reader)?)))?,
                lacking: read_all(reader, Reader::u128)?,
                next: read_option(reader, |reader| Ok((reader.u16()?, reader.bytes()?)))?,
                incarnation: reader.u64()?,
            }),
            11 => Response::Number(reader.u64()?),
            12 => Response::Keys {
                keys: read_all(reader, |reader| Ok((reader.u64()?, reader.bytes()?)))?,
                next: read_option(reader, Reader::u64)?,
            },
            13 => Response::Tally(Tally {
                keys: reader.u64()?,
                expiring: reader.u64()?,
                voids: reader.u64()?,
                next_deadline: reader.u64()?,
                siblings: reader.u64()?,
            }),
            14 => Response::Uncounted,
            15 => Response::Deposed(read_term(reader)?),
            16 => Response::Conflict,
            17 => Response::Terms(read_all(reader, read_claim)?),
            18 => Response::Heard(read_option(reader, Reader::u64)?),
            _ => return Err(DecodeError::Unknown("response")),
        };
        if reader.remaining() == 0 { Ok(response) } else { Err(DecodeError::Trailing) }
    }
}

pub(super) fn put_all<T>(out: &mut BytesMut, items: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    put_varint(out, items.len() as u64);
    items.iter().for_each(|item| put(out, item));
}

pub(super) fn read_all<T>(reader: &mut Reader, mut read: impl FnMut(&mut Reader) -> Decoded<T>) -> Decoded<Vec<T>> {
    (0..reader.count()?).map(|_| read(reader)).collect()
}

fn read_kind(number: u8) -> Decoded<Kind> {
    Kind::of_number(number).ok_or(DecodeError::Unknown("kind"))
}

pub(super) fn put_option<T>(out: &mut BytesMut, item: Option<&T>, put: impl FnOnce(&mut BytesMut, &T)) {
    out.put_u8(item.is_some().into());
    if let Some(item) = item {
        put(out, item);
    }
}

pub(super) fn read_option<T>(reader: &mut Reader, read: impl FnOnce(&mut Reader) -> Decoded<T>) -> Decoded<Option<T>> {
    match reader.u8()? {
        0 => Ok(None),
        1 => read(reader).map(Some),
        _ => Err(DecodeError::Invalid("option")),
    }
}

fn put_term(out: &mut BytesMut, term: &Term) {
    put_varint(out, term.number);
    out.put_u64(term.node.0);
}

fn read_term(reader: &mut Reader) -> Decoded<Term> {
    Ok(Term { number: reader.varint()?, node: NodeId(reader.u64()?) })
}

fn put_terms(out: &mut BytesMut, terms: &[(Partition, Term)]) {
    put_all(out, terms, |out, (partition, term)| {
        out.put_u16(partition.0);
        put_term(out, term);
    });
}

fn read_claim(reader: &mut Reader) -> Decoded<(Partition, Term)> {
    Ok((Partition(reader.u16()?), read_term(reader)?))
}

const STRICT_KNOWN: u8 = 1;
const STRICT: u8 = 2;
const REPORT: u8 = 4;

fn put_quorum(quorum: Quorum, out: &mut BytesMut) {
    let strict = match quorum.strict {
        None => 0,
        Some(false) => STRICT_KNOWN,
        Some(true) => STRICT_KNOWN | STRICT,
    };
    out.put_u8(quorum.read.unwrap_or(0));
    out.put_u8(quorum.write.unwrap_or(0));
    out.put_u8(strict | if quorum.report { REPORT } else { 0 });
}

fn read_quorum(reader: &mut Reader) -> Decoded<Quorum> {
    let asked = |n: u8| (n > 0).then_some(n);
    let (read, write, flags) = (asked(reader.u8()?), asked(reader.u8()?), reader.u8()?);
    let strict = (flags & STRICT_KNOWN != 0).then_some(flags & STRICT != 0);
    Ok(Quorum { read, write, strict, report: flags & REPORT != 0 })
}

fn put_snapshot(snapshot: &Snapshot, out: &mut BytesMut) {
    put_varint(out, snapshot.incarnation);
    snapshot.clock.put(out);
    put_option(out, snapshot.clear.as_ref(), |out, clear| clear.put(out));
    put_all(out, &snapshot.branches, |out, hash| out.put_u128(*hash));
}

fn read_snapshot(reader: &mut Reader) -> Decoded<Snapshot> {
    Ok(Snapshot {
        incarnation: reader.varint()?,
        clock: Clock::read(reader)?,
        clear: read_option(reader, Clock::read)?,
        branches: read_all(reader, Reader::u128)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_arrives_as_it_was_sent() {
        for strict in [None, Some(false), Some(true)] {
            for (read, write, report) in [(None, Some(2), true), (Some(3), None, false)] {
                let quorum = Quorum { read, write, strict, report };
                let mut wire = BytesMut::new();
                Request::Execute { hops: 2, db: Db(3), quorum, args: vec!["get".into()] }.put(&mut wire);
                let Ok(Request::Execute { hops: 2, quorum: read, .. }) = Request::read(wire.freeze()) else {
                    panic!("a command")
                };
                assert_eq!(read, quorum);
            }
        }
    }

    #[test]
    fn a_tally_arrives_as_it_was_sent_and_not_cut_short() {
        let tally = Tally { keys: 1, expiring: 2, voids: 3, siblings: 4, next_deadline: 5 };
        let mut wire = BytesMut::new();
        Response::Tally(tally).put(&mut wire);
        let wire = wire.freeze();
        let Ok(Response::Tally(read)) = Response::read(wire.clone()) else { panic!("a tally") };
        assert_eq!(read, tally);
        assert!(Response::read(wire.slice(..wire.len() - 1)).is_err());
    }
}
