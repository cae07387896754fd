//! What a container's `HELP` answers, drawn from its table.

use super::Answer;
use super::call::Call;
use super::host::Host;
use super::session::Session;
use super::spec::Spec;
use crate::resp::Reply;

/// `HELP` of any container: each subcommand with its syntax and its sentence.
pub fn help(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(super::find(call.spec.container.as_bytes()).map_or(Reply::Nil, of))
}

/// The help of `container`: a line that says how to call it, then two per subcommand.
pub fn of(container: &Spec) -> Reply {
    let opening = format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", container.name);
    let lines = container.children.iter().flat_map(|child| {
        let call = format!("{} {}", child.name, child.syntax);
        [call.trim_end().to_owned(), format!("    {}", child.summary)]
    });
    Reply::array([opening].into_iter().chain(lines).map(|line| Reply::Simple(line.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_has_two_lines_for_each_subcommand() {
        for container in super::super::all().filter(|spec| !spec.children.is_empty()) {
            let Reply::Array(lines) = of(container) else { panic!("an array") };
            assert_eq!(lines.len(), 1 + 2 * container.children.len(), "{}", container.name);
        }
    }
}
