//! Commands that only nodes send, each about one key at its coordinator: what a key holds, taken out a page at a time and
//! written under another name. No client can name them.

use bytes::Bytes;

use super::transaction;
use crate::base::codec::{Decoded, Reader, put_bytes, put_varint};
use crate::base::kind::Tag;
use crate::base::num::parse_i64;
use crate::causality::expiry::Deadline;
use crate::commands::errors::SYNTAX;
use crate::commands::spec::{Group, Keys, Run, Spec};
use crate::commands::{Answer, Call, hyperloglog};
use crate::model::look::Parcel;
use crate::model::{Draft, Image, Look, View};
use crate::resp::Reply;

static INTERNAL: [Spec; 6] = [
    Spec::new(".IMAGE", "key", Group::Dynamo, Run::Read(image)).arity(2).keys(Keys::FIRST),
    Spec::new(".PARCELS", "key from", Group::Dynamo, Run::Read(parcels)).arity(3).keys(Keys::FIRST),
    Spec::new(".PUT", "key nx [value deadline ...]", Group::Dynamo, Run::Write(put)).arity(-3).keys(Keys::FIRST),
    Spec::new(".FILL", "key over deadline text [parcel ...]", Group::Dynamo, Run::Write(fill))
        .arity(-5)
        .keys(Keys::FIRST),
    Spec::new(".PFMERGE", "key value", Group::Dynamo, Run::Write(hyperloglog::merge_given)).arity(3).keys(Keys::FIRST),
    Spec::new(".REMOVE", "key context", Group::Dynamo, Run::Write(remove)).arity(3).keys(Keys::FIRST),
];

/// The internal command of this name.
pub fn internal(name: &[u8]) -> Option<&'static Spec> {
    INTERNAL.iter().chain(&transaction::INTERNAL).find(|spec| spec.name.as_bytes() == name)
}

/// What was read of a key in one go: all but its collections' rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The context of having read it.
    pub context: Bytes,
    /// Its string.
    pub image: Option<Image>,
    /// Whether it has collections.
    pub more: bool,
    /// When those end.
    pub ends: Deadline,
}

/// `.IMAGE key`: context, whether there are collections, their deadline, then value and deadline of the string's winner
/// and of each sibling; nothing when the key is absent.
fn image(call: &Call, view: &mut View) -> Answer {
    let key = call.arg(1);
    let holds = view.holds(key)?;
    if holds.kind().is_none() {
        return Ok(Reply::Nil);
    }
    let (image, cell) = (view.image(key)?, view.cell(key)?);
    let context = view.seal(key, &cell);
    let head = [Reply::bulk(context), Reply::Int((!holds.parts.is_empty()).into()), number(holds.ends)];
    let values = image.iter().flat_map(|image| [&image.winner].into_iter().chain(&image.siblings));
    let parts = values.flat_map(|(data, deadline)| [Reply::bulk(data.clone()), number(*deadline)]);
    Ok(Reply::Array(head.into_iter().chain(parts).collect()))
}

/// What [`image`] answered.
pub fn read_of(parts: Vec<Reply>) -> Option<Read> {
    let mut parts = parts.into_iter();
    let (Some(Reply::Bulk(context)), Some(Reply::Int(more)), Some(Reply::Int(ends))) =
        (parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let mut values = Vec::new();
    while let (Some(Reply::Bulk(data)), Some(Reply::Int(deadline))) = (parts.next(), parts.next()) {
        values.push((data, deadline_of(deadline)));
    }
    let mut values = values.into_iter();
    let image = values.next().map(|winner| Image { winner, siblings: values.collect() });
    Some(Read { context, image, more: more != 0, ends: deadline_of(ends) })
}

/// `.PARCELS key from`: where to go on, or nothing, then rows of its collections.
fn parcels(call: &Call, view: &mut View) -> Answer {
    let (parcels, next) = view.parcels(call.arg(1), call.arg(2))?;
    let parcels = parcels.iter().map(|parcel| Reply::Bulk(encode(parcel)));
    Ok(Reply::Array([Reply::bulk_or_nil(next)].into_iter().chain(parcels).collect()))
}

/// `.PUT key nx value deadline …`: the winner first; nothing but the end of what is there when there is no value. Answers
/// 0 when `nx` is 1 and the key is there.
fn put(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    if call.arg(2) == "1" && draft.exists(key)? {
        return Ok(Reply::Int(0));
    }
    let mut values = call.args.get(3..).unwrap_or_default().chunks_exact(2).map(|pair| {
        let deadline = parse_i64(&pair[1]).and_then(|ms| u64::try_from(ms).ok());
        (pair[0].clone(), Deadline::from(deadline))
    });
    match values.next() {
        Some(winner) => draft.put_image(key, &Image { winner, siblings: values.collect() })?,
        None => drop(draft.remove(key)?),
    }
    Ok(Reply::Int(1))
}

/// `.FILL key over deadline text parcel …`: writes rows of collections; in place of all that is there if `over` is 1. A
/// deadline is for the collections, beside a string if `text` is 1; `-` says nothing of it. Answers how many rows.
fn fill(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    if call.arg(2) == "1" {
        draft.remove(key)?;
    }
    let parcels: Vec<Parcel> =
        call.args.get(5..).unwrap_or_default().iter().filter_map(|raw| decode(raw).ok()).collect();
    if parcels.len() + 5 != call.args.len() {
        return Err(SYNTAX.into());
    }
    if let Some(kind) = parcels.first().and_then(|parcel| parcel.tag.kind())
        && draft.kind(key)?.is_none()
    {
        draft.begin(key, kind)?;
    }
    if let Some(ms) = parse_i64(call.arg(3)).and_then(|ms| u64::try_from(ms).ok()) {
        let text = call.arg(4) == "1";
        draft.end_at(key, text, Deadline::At(ms))?;
    }
    let count = parcels.len();
    draft.put_parcels(key, parcels)?;
    Ok(Reply::Int(count as i64))
}

/// `.REMOVE key context`: removes what was read.
fn remove(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    let context = draft.open_context(key, call.arg(2)).map_err(|error| format!("ERR invalid context: {error}"))?;
    draft.remove_with_context(key, &context)?;
    Ok(Reply::ok())
}

/// A parcel as bytes.
pub fn encode(parcel: &Parcel) -> Bytes {
    let mut out = vec![parcel.tag.byte()];
    put_bytes(&mut out, &parcel.name);
    let values = [&parcel.image.winner].into_iter().chain(&parcel.image.siblings);
    put_varint(&mut out, 1 + parcel.image.siblings.len() as u64);
    for (data, deadline) in values {
        put_bytes(&mut out, data);
        put_varint(&mut out, deadline.ms().map_or(0, |ms| ms.saturating_add(1)));
    }
    out.into()
}

/// What [`encode`] wrote.
pub fn decode(raw: &Bytes) -> Decoded<Parcel> {
    use crate::base::codec::DecodeError::Unknown;
    let mut reader = Reader::new(raw.clone());
    let (tag, name) = (Tag::of(reader.u8()?).ok_or(Unknown("tag"))?, reader.bytes()?);
    let values: Vec<_> = (0..reader.count()?)
        .map(|_| Ok((reader.bytes()?, Deadline::from(reader.varint()?.checked_sub(1)))))
        .collect::<Decoded<_>>()?;
    reader.finish()?;
    let mut values = values.into_iter();
    let winner = values.next().ok_or(Unknown("parcel"))?;
    Ok(Parcel { tag, name, image: Image { winner, siblings: values.collect() } })
}

/// A deadline as an argument.
pub fn text_of(deadline: Deadline) -> Bytes {
    deadline.ms().map_or("-1".to_owned(), |ms| ms.to_string()).into()
}

fn number(deadline: Deadline) -> Reply {
    Reply::Int(deadline.ms().map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX)))
}

fn deadline_of(ms: i64) -> Deadline {
    Deadline::from(u64::try_from(ms).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::kind::Kind;

    proptest! {
        #[test]
        fn a_parcel_survives_its_encoding(
            name: Vec<u8>,
            winner: Vec<u8>,
            siblings in proptest::collection::vec((any::<Vec<u8>>(), proptest::option::of(0u64..99)), 0..3),
        ) {
            let siblings = siblings.into_iter().map(|(data, end)| (data.into(), Deadline::from(end))).collect();
            let image = Image { winner: (winner.into(), Deadline::Never), siblings };
            let parcel = Parcel { tag: Kind::Set.tag(), name: name.into(), image };
            prop_assert_eq!(decode(&encode(&parcel)), Ok(parcel));
        }

        #[test]
        fn any_bytes_are_a_parcel_or_an_error(raw: Vec<u8>) {
            let _ = decode(&raw.into());
        }
    }
}
