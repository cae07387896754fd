//! The texts of `--help`, as far as clap does not make them: usage, examples, and the directives that people set most.

use std::fmt::Write;

use crate::config::{example, table};

pub(super) const USAGE: &str = "\
redynamo [CONFIG-FILE] [--DIRECTIVE VALUE ...] [-]
       redynamo local [N] [--port 6379] [--dir DIR] [--DIRECTIVE VALUE ...]
       redynamo ping [--port 6379]";

const EXAMPLES: &str = "\
Examples:
  redynamo                                     a node on 127.0.0.1:6379, data in ./data
  redynamo local 3                             three nodes on this machine, to try things out
  redynamo --port 7777 --dir /var/lib/redynamo
  redynamo --port 6380 --dir ./two --join 127.0.0.1:16379
  redynamo /etc/redynamo.conf --loglevel verbose
  echo 'maxmemory 128mb' | redynamo -          more configuration from the standard input
  REDYNAMO_PORT=7777 redynamo                  every directive is an environment variable too
";

/// What stands below the help of `redynamo local`.
pub(super) const LOCAL: &str = "\
Nodes listen on the port and those after it, and keep their data in node-1, node-2, ... of the directory.
Directives go to every node. Kill one with 'kill -9' and go on: the command that brings it back is printed.";

/// The directives that the help shows.
const SHOWN: [&str; 15] = [
    "bind",
    "port",
    "peer-port",
    "admin-port",
    "dir",
    "join",
    "cluster-name",
    "cluster-secret",
    "replicas",
    "read-quorum",
    "write-quorum",
    "appendfsync",
    "maxmemory",
    "requirepass",
    "loglevel",
];

/// What stands below the help of `redynamo`.
pub(super) fn after() -> String {
    let mut text =
        format!("{EXAMPLES}\nDirectives, with their defaults (all of them: redynamo.conf, or CONFIG GET *):\n");
    for directive in SHOWN.iter().filter_map(|name| table::find(name)) {
        let flag = format!("--{} {}", directive.name, example::default(directive));
        // Writing to a string cannot fail.
        let _ = write!(text, "  {flag}\n        {}\n", directive.doc);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_of_the_help_is_in_the_table() {
        let text = after();
        for name in SHOWN {
            assert!(text.contains(&format!("--{name} ")), "{name}");
        }
    }
}
