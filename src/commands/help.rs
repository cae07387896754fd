//! What a container's `HELP` answers, drawn from its table.

use super::Answer;
use super::call::Call;
use super::host::Host;
use super::session::Session;
use super::spec::{Flags, Group, Run, Spec};
use crate::resp::Reply;

/// The `HELP` of a container that came with version `since` of Redis.
pub const fn spec(container: &'static str, group: Group, since: &'static str) -> Spec {
    Spec::new("HELP", "", group, Run::Node(help))
        .of(container)
        .doc("Lists the subcommands.", since, "O(1)")
        .arity(2)
        .flags(Flags::LOADING.and(Flags::STALE))
}

/// `HELP` of any container: each subcommand with its syntax and its sentence.
pub fn help(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(super::find(call.spec.container.as_bytes()).map_or(Reply::Nil, of))
}

/// The help of `container`: a line that says how to call it, then two per subcommand, as in Redis HELP last.
pub fn of(container: &Spec) -> Reply {
    let opening = format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", container.name);
    let others = container.children.iter().filter(|child| child.name != "HELP").flat_map(|child| {
        let call = format!("{} {}", child.name, child.syntax);
        [call.trim_end().to_owned(), format!("    {}", child.summary)]
    });
    let own = ["HELP".to_owned(), "    Print this help.".to_owned()];
    Reply::array([opening].into_iter().chain(others).chain(own).map(|line| Reply::Simple(line.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Bench;

    #[test]
    fn help_has_two_lines_for_each_subcommand() {
        for container in super::super::all().filter(|spec| !spec.children.is_empty()) {
            let Reply::Array(lines) = of(container) else { panic!("an array") };
            assert_eq!(lines.len(), 1 + 2 * container.children.len(), "{}", container.name);
        }
    }

    #[test]
    fn help_stands_between_redis_header_and_footer() {
        let text = Bench::new().run("SLOWLOG HELP");
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[1], "+SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        assert_eq!(lines[2], "+GET [count]");
        assert_eq!(lines[lines.len() - 3..], ["+HELP", "+    Print this help.", ""]);
    }
}
