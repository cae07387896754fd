//! A call: a command with its arguments, and a cursor over them that errs in Redis' words.

use bytes::Bytes;

use super::errors::{CommandError, NOT_AN_INTEGER, SYNTAX};
use super::spec::Spec;
use crate::base::num::parse_i64;

/// A command as a client sent it. Its number of arguments has been checked.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The declaration; a subcommand's own.
    pub spec: &'static Spec,
    /// All arguments, name first.
    pub args: &'a [Bytes],
}

impl<'a> Call<'a> {
    /// Argument `at`; empty if there is none, which a checked arity rules out.
    pub fn arg(&self, at: usize) -> &'a Bytes {
        static EMPTY: Bytes = Bytes::new();
        self.args.get(at).unwrap_or(&EMPTY)
    }

    /// Argument `at` as a 64-bit integer.
    pub fn int(&self, at: usize) -> Result<i64, CommandError> {
        int(self.arg(at))
    }

    /// A cursor over the arguments from `at` on.
    pub fn cursor(&self, at: usize) -> Cursor<'a> {
        Cursor { rest: self.args.get(at..).unwrap_or_default() }
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let args = self.args;
        self.spec.keys.positions(args).into_iter().filter_map(move |at| args.get(at))
    }
}

/// The integer that `arg` spells.
pub fn int(arg: &[u8]) -> Result<i64, CommandError> {
    parse_i64(arg).ok_or(NOT_AN_INTEGER.into())
}

/// Takes options off the front of the arguments.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [Bytes],
}

impl<'a> Cursor<'a> {
    /// The next argument, if there is one.
    pub fn next_arg(&mut self) -> Option<&'a Bytes> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// The next argument, or a syntax error.
    pub fn expect(&mut self) -> Result<&'a Bytes, CommandError> {
        self.next_arg().ok_or(SYNTAX.into())
    }

    /// The next argument as an integer; a syntax error if there is none.
    pub fn expect_int(&mut self) -> Result<i64, CommandError> {
        int(self.expect()?)
    }

    /// Takes the next argument if it is `word`, in any case.
    pub fn take(&mut self, word: &str) -> bool {
        let is_word = self.rest.first().is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
        if is_word {
            self.rest = &self.rest[1..];
        }
        is_word
    }

    /// What is left.
    pub fn rest(&self) -> &'a [Bytes] {
        self.rest
    }

    /// A syntax error unless all has been taken.
    pub fn finish(self) -> Result<(), CommandError> {
        if self.rest.is_empty() { Ok(()) } else { Err(SYNTAX.into()) }
    }
}
