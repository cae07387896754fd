//! `HELP` of any container, from its table.

use super::call::Call;
use super::errors::Answer;
use super::find;
use super::host::Host;
use super::session::Session;
use super::spec::{Flags, Group, Run, Spec};
use crate::resp::Reply;

/// The `HELP` subcommand of `container`.
pub const fn spec(container: &'static str, group: Group, since: &'static str) -> Spec {
    Spec::new("HELP", "", group, Run::Node(help))
        .of(container)
        .doc("Lists the subcommands.", since, "O(1)")
        .arity(2)
        .flags(Flags::LOADING.and(Flags::STALE))
}

fn help(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    let container = call.spec.container;
    let children = find(container.as_bytes()).map_or(&[][..], |spec| spec.children);
    let mut lines = vec![format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    for child in children.iter().filter(|child| child.name != "HELP") {
        lines.push(format!("{} {}", child.name, child.syntax).trim_end().to_owned());
        lines.push(format!("    {}", child.summary));
    }
    lines.extend(["HELP".to_owned(), "    Print this help.".to_owned()]);
    Ok(Reply::array(lines.into_iter().map(|line| Reply::Simple(line.into()))))
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Bench;

    #[test]
    fn help_lists_every_subcommand_between_redis_header_and_footer() {
        let text = Bench::new().run("SLOWLOG HELP");
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[1], "+SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        assert_eq!(lines[2], "+GET [count]");
        assert_eq!(lines[lines.len() - 3..], ["+HELP", "+    Print this help.", ""]);
    }
}
