//! The syntax of a command, in the notation of Redis' documentation, taken apart into the arguments of COMMAND DOCS.
//!
//! `[…]` may be left out, `a | b` is one of several, `<…>` holds a choice together, words in capitals stand for
//! themselves and the rest for values, `[x ...]` after an `x` is more of it. A word in capitals takes the value after
//! it; where it opens a bracket or an alternative, it takes all that follows.

use super::spec::{Group, Keys, Spec};

/// What kind of thing an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any bytes.
    String,
    /// A 64-bit integer.
    Integer,
    /// A float.
    Double,
    /// A key.
    Key,
    /// A glob.
    Pattern,
    /// Seconds or milliseconds since the epoch.
    UnixTime,
    /// A word that stands for itself.
    PureToken,
    /// One of its arguments.
    OneOf,
    /// All of its arguments, in order.
    Block,
}

impl Kind {
    /// Its name in COMMAND DOCS.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Double => "double",
            Kind::Key => "key",
            Kind::Pattern => "pattern",
            Kind::UnixTime => "unix-time",
            Kind::PureToken => "pure-token",
            Kind::OneOf => "oneof",
            Kind::Block => "block",
        }
    }
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name, in lower case.
    pub name: String,
    /// What kind of thing it is.
    pub kind: Kind,
    /// The word before it, or the word it is.
    pub token: Option<&'static str>,
    /// It may be left out.
    pub optional: bool,
    /// It may be repeated.
    pub multiple: bool,
    /// Its word is repeated with it.
    pub multiple_token: bool,
    /// What a choice or block consists of.
    pub arguments: Vec<Argument>,
}

/// The arguments of a command; an unfinished bracket ends with the text.
pub fn parse(spec: &Spec) -> Vec<Argument> {
    let mut words = words(spec.syntax).into_iter();
    let nodes = alternatives(&mut words).into_iter().next().unwrap_or_default();
    Builder { spec }.sequence(&nodes)
}

/// A piece of syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Word(&'static str),
    Dots,
    Optional(Vec<Vec<Node>>),
    Choice(Vec<Vec<Node>>),
}

impl Node {
    fn token(&self) -> Option<&'static str> {
        match self {
            Node::Word(word) if is_token(word) => Some(word),
            _ => None,
        }
    }
}

/// Whether a word stands for itself: capitals, digits and signs, or a sign alone.
fn is_token(word: &str) -> bool {
    !word.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Words, and brackets as words of their own.
fn words(syntax: &'static str) -> Vec<&'static str> {
    let mut words = Vec::new();
    for mut chunk in syntax.split_whitespace() {
        while let Some(at) = chunk.find(['[', ']', '<', '>', '|']) {
            let (word, rest) = chunk.split_at(at);
            let (bracket, rest) = rest.split_at(1);
            words.extend([word, bracket].into_iter().filter(|word| !word.is_empty()));
            chunk = rest;
        }
        words.extend(Some(chunk).filter(|word| !word.is_empty()));
    }
    words
}

/// Alternatives up to the bracket that ends them.
fn alternatives(words: &mut impl Iterator<Item = &'static str>) -> Vec<Vec<Node>> {
    let mut all = Vec::new();
    let mut nodes = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "]" | ">" => break,
            "|" => all.push(std::mem::take(&mut nodes)),
            "[" => nodes.push(Node::Optional(alternatives(words))),
            "<" => nodes.push(Node::Choice(alternatives(words))),
            "..." => nodes.push(Node::Dots),
            word => nodes.push(Node::Word(word)),
        }
    }
    all.push(nodes);
    all
}

/// Makes arguments of a command's pieces.
struct Builder<'a> {
    spec: &'a Spec,
}

impl Builder<'_> {
    /// Arguments one after the other.
    fn sequence(&self, nodes: &[Node]) -> Vec<Argument> {
        let mut out = Vec::new();
        let mut rest = nodes;
        while let [first, after @ ..] = rest {
            rest = after;
            match (first, after) {
                (Node::Dots, _) => {}
                (Node::Optional(all), _) if let [body @ .., Node::Dots] = &all[0][..] => self.repeat(body, &mut out),
                (Node::Optional(all), _) => out.push(Argument { optional: true, ..self.choice(all) }),
                (Node::Choice(all), _) => out.push(self.choice(all)),
                (Node::Word(token), [value, later @ ..]) if is_token(token) && takes(value) => {
                    out.push(with_token(token, self.sequence(std::slice::from_ref(value))));
                    rest = later;
                }
                (Node::Word(token), _) if is_token(token) => out.push(pure_token(token)),
                (Node::Word(name), _) => out.push(self.value(name)),
            }
        }
        out
    }

    /// `[x ...]`: more of what stands before it, or an argument of its own that may be repeated.
    fn repeat(&self, body: &[Node], out: &mut Vec<Argument>) {
        let body = self.sequence(body);
        let before = out.len().saturating_sub(body.len());
        let same = |one: &Argument, other: &Argument| one.name == other.name && one.kind == other.kind;
        let repeats = out[before..].iter().zip(&body).all(|(one, other)| same(one, other)) && out.len() >= body.len();
        let optional = !repeats;
        if repeats {
            out.truncate(before);
        }
        let multiple_token = repeats && body.first().is_some_and(|first| first.token.is_some());
        out.push(Argument { optional, multiple: true, multiple_token, ..together(body) });
    }

    /// One of several, or the only one.
    fn choice(&self, all: &[Vec<Node>]) -> Argument {
        let multiple = all.len() > 1 && all.last().is_some_and(|last| last.last() == Some(&Node::Dots));
        let mut arguments: Vec<Argument> = all.iter().map(|nodes| self.alternative(nodes)).collect();
        match arguments.len() {
            1 => arguments.remove(0),
            _ => Argument { multiple, ..group(Kind::OneOf, arguments) },
        }
    }

    /// All of an alternative as one argument.
    fn alternative(&self, nodes: &[Node]) -> Argument {
        let Some((token, values)) = nodes.split_first().and_then(|(first, rest)| Some((first.token()?, rest))) else {
            return together(self.sequence(nodes));
        };
        if let [values @ .., Node::Optional(all)] = values
            && let [body @ .., Node::Dots] = &all[0][..]
            && body == &nodes[..nodes.len() - 1]
        {
            let once = with_token(token, self.sequence(values));
            return Argument { multiple: true, multiple_token: true, ..once };
        }
        match values {
            [] | [Node::Dots] => pure_token(token),
            [next, ..] if next.token().is_some() => together(self.sequence(nodes)),
            _ => with_token(token, self.sequence(values)),
        }
    }

    fn value(&self, name: &'static str) -> Argument {
        Argument { kind: self.kind(name), ..leaf(name) }
    }

    fn kind(&self, name: &str) -> Kind {
        match name {
            "key" | "newkey" | "source" | "destination" | "key1" | "key2" | "destkey" | "sourcekey"
                if !matches!(self.spec.keys, Keys::None) =>
            {
                Kind::Key
            }
            "increment" if self.spec.name.ends_with("FLOAT") => Kind::Double,
            "pattern" => Kind::Pattern,
            "unix-time-seconds" | "unix-time-milliseconds" => Kind::UnixTime,
            "value" if self.spec.group == Group::Bitmap => Kind::Integer,
            name if INTEGERS.contains(&name) => Kind::Integer,
            _ => Kind::String,
        }
    }
}

/// Names of values that are integers.
const INTEGERS: [&str; 33] = [
    "numkeys",
    "limit",
    "numfields",
    "bit",
    "bits",
    "client-id",
    "cluster-bus-port",
    "config-epoch",
    "count",
    "cursor",
    "decrement",
    "destination-db",
    "db",
    "end",
    "end-slot",
    "increment",
    "index",
    "index1",
    "index2",
    "len",
    "min-match-len",
    "milliseconds",
    "numlocal",
    "numreplicas",
    "offset",
    "port",
    "protover",
    "seconds",
    "slot",
    "start",
    "start-slot",
    "timeout",
    "version",
];

/// Whether a word in capitals takes what follows it as its value.
fn takes(value: &Node) -> bool {
    match value {
        Node::Word(word) => !is_token(word),
        Node::Choice(_) => true,
        Node::Optional(_) | Node::Dots => false,
    }
}

fn leaf(name: &str) -> Argument {
    Argument {
        name: name.to_lowercase(),
        kind: Kind::String,
        token: None,
        optional: false,
        multiple: false,
        multiple_token: false,
        arguments: Vec::new(),
    }
}

fn pure_token(token: &'static str) -> Argument {
    Argument { kind: Kind::PureToken, token: Some(token), ..leaf(token) }
}

fn with_token(token: &'static str, values: Vec<Argument>) -> Argument {
    Argument { token: Some(token), ..together(values) }
}

/// One argument of several.
fn together(mut arguments: Vec<Argument>) -> Argument {
    if arguments.len() == 1 { arguments.remove(0) } else { group(Kind::Block, arguments) }
}

fn group(kind: Kind, arguments: Vec<Argument>) -> Argument {
    let names: Vec<&str> = arguments.iter().map(|argument| argument.name.as_str()).collect();
    Argument { kind, ..leaf(&names.join("_")) }.with(arguments)
}

impl Argument {
    fn with(self, arguments: Vec<Argument>) -> Argument {
        Argument { arguments, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::everything;
    use crate::commands::spec::{Group, Run};

    /// Arguments in short: `?` optional, `*` repeated, `**` with its word, `TOKEN:name(kind)`.
    fn short(arguments: &[Argument]) -> String {
        let one = |argument: &Argument| {
            let mut text = String::new();
            let marks = [(argument.optional, "?"), (argument.multiple, "*"), (argument.multiple_token, "*")];
            marks.into_iter().filter(|(set, _)| *set).for_each(|(_, mark)| text.push_str(mark));
            text.push_str(argument.token.unwrap_or(""));
            text.push_str(&match argument.kind {
                Kind::PureToken => String::new(),
                Kind::OneOf => format!("<{}>", short(&argument.arguments).replace(' ', "|")),
                Kind::Block => format!("({})", short(&argument.arguments)),
                kind => format!(":{}.{}", argument.name, &kind.name()[..1]),
            });
            text
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn check(syntax: &'static str, expected: &str) {
        let spec = Spec::new("TEST", syntax, Group::String, Run::Container).keys(Keys::FIRST);
        assert_eq!(short(&parse(&spec)), expected, "{syntax}");
    }

    #[test]
    fn values_options_and_choices() {
        check("", "");
        check("key value", ":key.k :value.s");
        check("[message]", "?:message.s");
        check("<ON | OFF>", "<ON|OFF>");
        check("[username] password", "?:username.s :password.s");
        check("key seconds [NX | XX | GT | LT]", ":key.k :seconds.i ?<NX|XX|GT|LT>");
        check(
            "key value [NX | XX] [GET] [EX seconds | PXAT unix-time-milliseconds | KEEPTTL]",
            ":key.k :value.s ?<NX|XX> ?GET ?<EX:seconds.i|PXAT:unix-time-milliseconds.u|KEEPTTL>",
        );
    }

    #[test]
    fn repetitions() {
        check("key [key ...]", "*:key.k");
        check("key value [key value ...]", "*(:key.k :value.s)");
        check("command [arg ...]", ":command.s ?*:arg.s");
        check("[section [section ...]]", "?*:section.s");
        check("[ID client-id [client-id ...]]", "?*ID:client-id.i");
        check("[PREFIX prefix [PREFIX prefix ...]]", "?**PREFIX:prefix.s");
        check("path [CONFIG name value [CONFIG name value ...]]", ":path.s ?**CONFIG(:name.s :value.s)");
    }

    #[test]
    fn words_take_what_belongs_to_them() {
        check("R index W name command [arg ...]", "R:index.i W:name.s :command.s ?*:arg.s");
        check(
            "[protover [AUTH username password] [SETNAME clientname]]",
            "?(:protover.i ?AUTH(:username.s :password.s) ?SETNAME:clientname.s)",
        );
        check("<host port | NO ONE>", "<(:host.s|:port.i)|(NO|ONE)>");
        check("[TO host port [FORCE]] [ABORT]", "?TO(:host.s :port.i ?FORCE) ?ABORT");
        check("[TYPE <NORMAL | PUBSUB>]", "?TYPE<NORMAL|PUBSUB>");
        check(
            "<ip:port | <[ID client-id] | [SKIPME <YES | NO>] ...>>",
            "<:ip:port.s|*<?ID:client-id.i|?SKIPME<YES|NO>>>",
        );
    }

    #[test]
    fn brackets_left_open_do_not_trouble_the_reader() {
        check("[a <b", "?(:a.s :b.s)");
        check("a ] b", ":a.s");
        check("... [...] >", "*()");
    }

    #[test]
    fn every_declared_syntax_is_whole() {
        for spec in everything() {
            let count = |bracket: char| spec.syntax.matches(bracket).count();
            assert_eq!((count('['), count('<')), (count(']'), count('>')), "{}", spec.full_name());
        }
    }
}
