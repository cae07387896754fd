//! `rename-command`: names that commands have for this node's clients. Only a client's own words are translated; what
//! nodes send each other has the names that everybody knows.

use std::collections::HashMap;

use bytes::Bytes;

use crate::commands::dynamo::inner_at;
use crate::commands::errors::unknown_command;
use crate::commands::{Call, CommandError, Spec, find, lookup};
use crate::resp::Arguments;

/// Names in lower case: the name of the command that is meant, or none where a command was taken away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Renames(HashMap<Vec<u8>, Option<&'static str>>);

impl Renames {
    /// The names that `pairs` of old and new name lead to, one after the other; none when there are no pairs.
    ///
    /// # Errors
    /// As in Redis: the old name is no command's, or the new one is.
    pub fn of(pairs: &[(String, String)]) -> Result<Option<Renames>, String> {
        let mut renames = Renames::default();
        for (from, to) in pairs {
            renames.rename(from, to).map_err(|why| format!("rename-command {from} \"{to}\": {why}"))?;
        }
        Ok((!pairs.is_empty()).then_some(renames))
    }

    /// The command or subcommand that a client calls, however many arguments there are. The names in `args` become those
    /// that everybody knows.
    ///
    /// # Errors
    /// As [`lookup`]; a name that was given away is an unknown command.
    pub fn lookup(&self, args: &mut Arguments) -> Result<&'static Spec, CommandError> {
        self.translate(args, 0)?;
        let spec = lookup(args)?;
        if let Some(at) = inner_at(&Call { spec, args }) {
            self.translate(args, at)?;
        }
        Ok(spec)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), &'static str> {
        let meant = self.meant(from).ok_or("there is no such command")?;
        self.0.insert(lower(from.as_bytes()), None);
        if to.is_empty() {
            return Ok(());
        }
        if self.meant(to).is_some() {
            return Err("a command of the new name exists");
        }
        self.0.insert(lower(to.as_bytes()), Some(meant));
        Ok(())
    }

    fn meant(&self, name: &str) -> Option<&'static str> {
        let own = self.0.get(&lower(name.as_bytes())).copied();
        own.unwrap_or_else(|| find(name.as_bytes()).map(|spec| spec.name))
    }

    /// Puts the known name in the place of the one at `at`.
    fn translate(&self, args: &mut Arguments, at: usize) -> Result<(), CommandError> {
        match args.get(at).and_then(|name| self.0.get(&lower(name))) {
            None => {}
            Some(None) => return Err(unknown_command(args.get(at..).unwrap_or_default())),
            Some(Some(known)) => {
                if let Some(name) = args.get_mut(at) {
                    *name = Bytes::from_static(known.as_bytes());
                }
            }
        }
        Ok(())
    }
}

fn lower(name: &[u8]) -> Vec<u8> {
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Reply;
    use crate::server::testing::{run, server_and_store};

    fn of(pairs: &[(&str, &str)]) -> Result<Option<Renames>, String> {
        let pairs: Vec<_> = pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        Renames::of(&pairs)
    }

    fn error(text: &str) -> Reply {
        Reply::error(text.to_owned())
    }

    #[test]
    fn a_renamed_command_answers_under_its_new_name_only() {
        let server = server_and_store("rename-command get fetch\nrename-command FLUSHALL \"\"").0;
        run(&server, "set k v");
        assert_eq!(run(&server, "FETCH k"), Reply::bulk_static("v"));
        assert_eq!(run(&server, "Get k"), error("ERR unknown command 'Get', with args beginning with: 'k' "));
        assert_eq!(run(&server, "flushall"), error("ERR unknown command 'flushall', with args beginning with: "));
        assert_eq!(run(&server, "fetch"), error("ERR wrong number of arguments for 'get' command"));
        assert_eq!(server.stats.unknown_commands.get(), 2);
    }

    #[test]
    fn a_prefix_is_no_way_around_it() {
        let server = server_and_store("rename-command get fetch\nrename-command dynamo d").0;
        run(&server, "set k v");
        assert_eq!(run(&server, "d with r 1 fetch k"), Reply::bulk_static("v"));
        let refused = error("ERR unknown command 'get', with args beginning with: 'k' ");
        assert_eq!(run(&server, "d with r 1 get k"), refused);
        assert_eq!(run(&server, "DYNAMO.WITH r 1 get k"), refused);
        assert!(run(&server, "dynamo with r 1 fetch k").is_error());
    }

    #[test]
    fn containers_take_their_subcommands_along() {
        let server = server_and_store("rename-command config secret").0;
        assert!(matches!(run(&server, "secret get port"), Reply::Map(_)));
        assert!(run(&server, "config get port").is_error());
    }

    #[test]
    fn names_may_be_swapped_one_after_the_other() {
        let renames = of(&[("get", "x"), ("set", "get"), ("x", "set")]).unwrap().unwrap();
        let meant = |name: &'static str| {
            renames.lookup(&mut [Bytes::from_static(name.as_bytes())].into_iter().collect()).map(|spec| spec.name).ok()
        };
        assert_eq!(
            (meant("GET"), meant("SET"), meant("x"), meant("del")),
            (Some("SET"), Some("GET"), None, Some("DEL"))
        );
    }

    #[test]
    fn renames_that_cannot_be_are_refused() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("gat", "x")]).unwrap_err(), "rename-command gat \"x\": there is no such command");
        assert!(of(&[("get", "SET")]).unwrap_err().ends_with("a command of the new name exists"));
        assert!(of(&[("get", "x"), ("get", "y")]).is_err(), "it is gone by then");
    }
}
