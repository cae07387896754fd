//! Kinds: what a key may hold, and the rows that each is made of. Numbers are on disk: explicit, only ever appended.

/// What a key holds, as TYPE names it. Of several under one key the greatest answers plain commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A string or counter: the head row itself.
    Text = 0,
    /// A row for each field.
    Hash = 1,
    /// A row for each member.
    Set = 2,
    /// A row for each member, and an index row by score.
    Zset = 3,
    /// A row for each element, by position.
    List = 4,
    /// A row for each entry, and side rows for its last id and its groups.
    Stream = 5,
}

/// What a row is within its key: the byte between key and element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u8);

/// What a row is to its collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The head of the key.
    Head,
    /// One of the elements that are counted.
    Element,
    /// Something else of the collection, replicated and not counted as an element; the key is there as long as it is.
    Side,
    /// Derived from an element, of this replica only: neither sent nor digested nor merged.
    Index,
}

/// What makes an index row of its collection's tag.
const INDEX: u8 = 0x80;

impl Kind {
    /// Every kind of collection.
    pub const COLLECTIONS: [Kind; 5] = [Kind::Hash, Kind::Set, Kind::Zset, Kind::List, Kind::Stream];

    /// Redis' name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Text => "string",
            Kind::Hash => "hash",
            Kind::Set => "set",
            Kind::Zset => "zset",
            Kind::List => "list",
            Kind::Stream => "stream",
        }
    }

    /// The kind of this name, in any case.
    pub fn named(name: &[u8]) -> Option<Kind> {
        let all = [Kind::Text].into_iter().chain(Kind::COLLECTIONS);
        all.into_iter().find(|kind| kind.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The kind of this number.
    pub fn of_number(number: u8) -> Option<Kind> {
        [Kind::Text].into_iter().chain(Kind::COLLECTIONS).find(|kind| *kind as u8 == number)
    }

    /// The tag of its elements.
    pub const fn tag(self) -> Tag {
        Tag(self as u8)
    }
}

impl Tag {
    /// The head row's.
    pub const HEAD: Tag = Tag(0);
    /// What a stream has beside its entries.
    pub const STREAM_SIDE: Tag = Tag(6);
    /// Fields of hashes by when they end.
    pub const HASH_ENDS: Tag = Tag(INDEX | Kind::Hash as u8);
    /// Members of sorted sets by score.
    pub const ZSET_INDEX: Tag = Tag(INDEX | Kind::Zset as u8);

    /// The tag of this byte, if there is such a row.
    pub fn of(byte: u8) -> Option<Tag> {
        Some(Tag(byte)).filter(|tag| tag.kind().is_some())
    }

    /// The byte.
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// Whose row it is.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Tag::STREAM_SIDE => Some(Kind::Stream),
            Tag::HASH_ENDS => Some(Kind::Hash),
            Tag::ZSET_INDEX => Some(Kind::Zset),
            Tag(number) => Kind::of_number(number),
        }
    }

    /// What it is there.
    pub fn role(self) -> Role {
        match self {
            Tag::HEAD => Role::Head,
            Tag::STREAM_SIDE => Role::Side,
            Tag(byte) if byte & INDEX != 0 => Role::Index,
            _ => Role::Element,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_that_are_on_disk() {
        let all = [(0, "string"), (1, "hash"), (2, "set"), (3, "zset"), (4, "list"), (5, "stream")];
        for (number, name) in all {
            let kind = Kind::of_number(number).unwrap();
            assert_eq!((kind.name(), kind.tag().byte(), kind.tag().kind()), (name, number, Some(kind)));
            assert_eq!(Kind::named(name.to_uppercase().as_bytes()), Some(kind));
        }
        assert_eq!((Kind::of_number(6), Kind::named(b"sets")), (None, None));
        assert_eq!((Tag::STREAM_SIDE.byte(), Tag::ZSET_INDEX.byte()), (6, 0x83));
    }

    #[test]
    fn a_tag_says_whose_row_it_is_and_what_it_is_there() {
        let roles = |byte| Tag::of(byte).map(|tag| (tag.kind().unwrap(), tag.role()));
        assert_eq!(roles(0), Some((Kind::Text, Role::Head)));
        assert_eq!(roles(2), Some((Kind::Set, Role::Element)));
        assert_eq!(roles(6), Some((Kind::Stream, Role::Side)));
        assert_eq!(roles(0x83), Some((Kind::Zset, Role::Index)));
        assert_eq!((roles(7), roles(0x82), roles(0xff)), (None, None, None));
    }
}
