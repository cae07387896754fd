//! The program as a command, and what its nodes say of where keys lie.

use std::process::Command;

use super::wire::Value;

/// The program, with an environment without settings.
pub fn program() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_redynamo")))
}

/// Takes settings out of what a command inherits.
pub fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("REDYNAMO_") {
            command.env_remove(name);
        }
    }
    command
}

/// The name of a key's coordinator; an error if one of its owners is not alive.
pub fn coordinator(place: &Value) -> Result<String, String> {
    let Value::Many(_) = place else { return Err(format!("{place:?}")) };
    let nodes = place.field("nodes").items();
    if let Some(dead) = nodes.iter().find(|node| !is_true(node.field("live"))) {
        return Err(format!("{} is not alive", dead.field("name").text()));
    }
    let found = nodes.iter().find(|node| is_true(node.field("coordinator")));
    found.map(|node| node.field("name").text()).ok_or_else(|| "no coordinator".to_owned())
}

fn is_true(value: &Value) -> bool {
    *value == Value::Int(1) || *value == Value::from("t")
}

/// What each owner of a key holds of it: dots, in order; none of an owner that does not answer.
pub fn holdings(place: &Value) -> Vec<Option<Vec<String>>> {
    let owners = place.field("nodes").items().iter().filter(|node| node.field("role").text() == "owner");
    let dots = |held: &Value| match held {
        Value::Nil => None,
        held => {
            let mut dots: Vec<String> = held.items().iter().map(Value::text).collect();
            dots.sort();
            Some(dots)
        }
    };
    owners.map(|node| dots(node.field("holds"))).collect()
}
