//! The example file, `redynamo.conf` in the project's root: every setting with its meaning and default, commented out.

use std::fmt::Write;

use super::table::{Directive, GROUPS};
use super::words;

const HEAD: &str = "\
# Settings of redynamo. Made from the table of settings; each is shown with its default.
#
#   redynamo /path/to/redynamo.conf          start with this file
#   redynamo --port 7000                     any directive is a flag too
#   REDYNAMO_PORT=7000 redynamo              and an environment variable
#   redis-cli config set maxclients 20000    most can be changed while the node runs (marked *)
#
# Flags override the environment, which overrides this file.
# Sizes: 1k is 1000 bytes, 1kb is 1024, likewise m, mb, g, gb.
# Other directives of Redis 7.2 are accepted, answered by CONFIG GET, and have no effect.
#
# include /etc/redynamo/conf.d/*.conf
";

/// The example file's text.
pub fn render() -> String {
    let mut text = HEAD.to_owned();
    for group in GROUPS {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n\n#### {}\n", group.title);
        for directive in group.rows.iter().filter(|directive| !directive.hidden) {
            let live = if directive.change == super::Change::Live { " *" } else { "" };
            let _ = write!(text, "\n#{live} {}\n# {} {}\n", directive.doc, directive.name, default(directive));
        }
    }
    text
}

/// A default as a file needs it.
pub(crate) fn default(directive: &Directive) -> String {
    let text = directive.kind.readable(directive.default);
    if directive.kind.takes_many() && !text.is_empty() { text } else { words::quote(&text) }
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;
    use std::path::Path;

    #[test]
    fn the_example_file_is_what_the_table_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("redynamo.conf");
        if std::fs::read_to_string(&path).unwrap_or_default() != render() {
            std::fs::write(&path, render()).unwrap();
            panic!("redynamo.conf was not up to date; it is now: look at it and commit it");
        }
    }

    #[test]
    fn the_example_without_its_comment_signs_is_the_default_configuration() {
        let names: Vec<&str> = GROUPS.iter().flat_map(|group| group.rows).map(|directive| directive.name).collect();
        let is_setting = |line: &&str| names.contains(&line.split(' ').next().unwrap_or_default());
        let text: Vec<String> =
            render().lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting).map(str::to_owned).collect();
        assert_eq!(text.len(), names.len() - 1, "all but the hidden one");
        let example = Sources { stdin: Some(text.join("\n")), ..Sources::default() }.load().unwrap();
        assert_eq!(example.get(&["*"]), Sources::default().load().unwrap().get(&["*"]));
    }
}
