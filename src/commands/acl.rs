//! `ACL`, as far as one user goes: `default`, who may do everything once authenticated. Also the categories of commands,
//! which follow from their families and flags.

use bytes::Bytes;

use super::call::Call;
use super::errors::{Answer, CommandError, misused, wrong_arity};
use super::help;
use super::host::Host;
use super::session::{DEFAULT_USER, Session};
use super::spec::{Flags, Group, Run, Spec};
use super::{everything, lookup};
use crate::resp::Reply;

/// The subcommands.
pub static TABLE: &[Spec] = &[
    sub("CAT", "[category]", cat).arity(-2).doc(
        "Lists categories, or the commands of one.",
        "6.0.0",
        "O(1) since the categories and commands are a fixed set.",
    ),
    sub("DELUSER", "username [username ...]", del_user)
        .arity(-3)
        .flags(Flags::ADMIN)
        .doc("Removes users; there are none to remove.", "6.0.0", "O(1) amortized time considering the typical user.")
        .tips(ALL_NODES),
    sub("DRYRUN", "username command [arg [arg ...]]", dry_run).arity(-4).flags(Flags::ADMIN).doc(
        "Says whether a user may run a command.",
        "7.0.0",
        "O(1).",
    ),
    sub("GENPASS", "[bits]", gen_pass).arity(-2).doc("Makes a password that nobody can guess.", "6.0.0", "O(1)"),
    sub("GETUSER", "username", get_user).arity(3).flags(Flags::ADMIN).doc(
        "Describes a user.",
        "6.0.0",
        "O(N). Where N is the number of password, command and pattern rules that the user has.",
    ),
    help::spec("ACL", Group::Server, "6.0.0"),
    sub("LIST", "", list).flags(Flags::ADMIN).doc("Describes all users.", "6.0.0", PER_USER),
    sub("LOAD", "", no_file).flags(Flags::ADMIN).doc("Reads users from a file; there is none.", "6.0.0", PER_USER),
    sub("LOG", "[count | RESET]", log).arity(-2).flags(Flags::ADMIN).doc(
        "Returns what users were refused: nothing.",
        "6.0.0",
        "O(N) with N being the number of entries shown.",
    ),
    sub("SAVE", "", no_file)
        .flags(Flags::ADMIN)
        .doc("Writes users to a file; there is none.", "6.0.0", PER_USER)
        .tips(ALL_NODES),
    sub("SETUSER", "username [rule [rule ...]]", set_user)
        .arity(-3)
        .flags(Flags::ADMIN)
        .doc("Changes a user; refused.", "6.0.0", "O(N). Where N is the number of rules provided.")
        .tips(ALL_NODES),
    sub("USERS", "", users).flags(Flags::ADMIN).doc("Lists the names of users.", "6.0.0", PER_USER),
    sub("WHOAMI", "", who_am_i).doc("Returns the connection's user.", "6.0.0", "O(1)"),
];

const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];
const PER_USER: &str = "O(N). Where N is the number of configured users.";

const fn sub(name: &'static str, syntax: &'static str, run: fn(&Call, &Session, &dyn Host) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Server, Run::Node(run))
        .of("ACL")
        .arity(2)
        .flags(Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE))
}

/// All categories, in Redis' order.
pub const CATEGORIES: [&str; 22] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
    "dynamo",
];

/// The categories of a command, in the order of [`CATEGORIES`]: those it declares or those of its family, and what its
/// flags imply.
pub fn categories(spec: &Spec) -> Vec<&'static str> {
    let family: &[&str] = match spec.group {
        Group::String => &["string"],
        Group::Hash => &["hash"],
        Group::Set => &["set"],
        Group::Bitmap => &["bitmap"],
        Group::Hyperloglog => &["hyperloglog"],
        Group::Generic => &["keyspace"],
        Group::Connection => &["connection"],
        Group::Dynamo => &["dynamo"],
        Group::Transactions => &["transaction"],
        Group::PubSub | Group::Server | Group::Cluster => &[],
    };
    let declared = spec.categories.unwrap_or(family);
    let fast = spec.flags.has(Flags::FAST);
    let implied = |category: &str| match category {
        "write" => spec.flags.has(Flags::WRITE),
        "read" => spec.flags.has(Flags::READONLY),
        "admin" | "dangerous" => spec.flags.has(Flags::ADMIN),
        "pubsub" => spec.flags.has(Flags::PUBSUB),
        "blocking" => spec.flags.has(Flags::BLOCKING),
        "fast" => fast,
        "slow" => !fast,
        _ => false,
    };
    CATEGORIES.into_iter().filter(|category| declared.contains(category) || implied(category)).collect()
}

fn cat(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    let names = |names: Vec<String>| Ok(Reply::array(names.into_iter().map(Reply::bulk)));
    match call.args {
        [_, _] => Ok(Reply::array(CATEGORIES.map(Reply::bulk_static))),
        [_, _, category] => {
            let Some(category) = CATEGORIES.into_iter().find(|name| category.eq_ignore_ascii_case(name.as_bytes()))
            else {
                return Err(format!("ERR Unknown category '{}'", String::from_utf8_lossy(category)).into());
            };
            names(everything().filter(|spec| categories(spec).contains(&category)).map(Spec::full_name).collect())
        }
        _ => Err(misused(call)),
    }
}

fn who_am_i(_: &Call, session: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Bulk(session.user.clone()))
}

fn users(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::array([Reply::bulk_static(DEFAULT_USER)]))
}

/// The password's hash, which Redis shows here, is nobody's business.
fn list(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    let password = if host.password_required() { "#(hidden)" } else { "nopass" };
    Ok(Reply::array([Reply::bulk(format!("user {DEFAULT_USER} on {password} sanitize-payload ~* &* +@all"))]))
}

fn get_user(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    if call.arg(2) != DEFAULT_USER {
        return Ok(Reply::Nil);
    }
    let flags: &[&str] = if host.password_required() { &["on"] } else { &["on", "nopass"] };
    let flags = flags.iter().copied().chain(["sanitize-payload"]);
    Ok(Reply::map([
        ("flags", Reply::Set(flags.map(Reply::bulk_static).collect())),
        ("passwords", Reply::Array(Vec::new())),
        ("commands", Reply::bulk_static("+@all")),
        ("keys", Reply::bulk_static("~*")),
        ("channels", Reply::bulk_static("&*")),
        ("selectors", Reply::Array(Vec::new())),
    ]))
}

fn set_user(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Err("ERR there is only the user 'default'; set its password with CONFIG SET requirepass".into())
}

fn del_user(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    if call.args[2..].iter().any(|name| name == DEFAULT_USER) {
        return Err("ERR The 'default' user cannot be removed".into());
    }
    Ok(Reply::Int(0))
}

fn dry_run(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    let refuse = |what: &str, name: &Bytes| -> CommandError {
        format!("ERR {what} '{}' not found", String::from_utf8_lossy(name)).into()
    };
    if call.arg(2) != DEFAULT_USER {
        return Err(refuse("User", call.arg(2)));
    }
    let command = call.cursor(3).rest();
    let spec = lookup(command).map_err(|_| refuse("Command", call.arg(3)))?;
    if spec.allows(command.len()) { Ok(Reply::ok()) } else { Err(wrong_arity(&spec.full_name())) }
}

/// Hexadecimal digits for as many bits as are asked for, rounded up to whole digits.
fn gen_pass(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    const MAX_BITS: usize = 4096;
    let bits = match call.args {
        [_, _] => 256,
        [_, _, _] => call.int(2)?,
        _ => return Err(misused(call)),
    };
    let bits = usize::try_from(bits).ok().filter(|bits| (1..=MAX_BITS).contains(bits)).ok_or(
        "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
    )?;
    let mut random = [0; MAX_BITS / 8];
    host.random(&mut random);
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Reply::bulk(digits[..bits.div_ceil(4)].to_owned()))
}

fn log(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    match call.args {
        [_, _] => Ok(Reply::Array(Vec::new())),
        [_, _, option] if option.eq_ignore_ascii_case(b"reset") => Ok(Reply::ok()),
        [_, _, _] => call.int(2).map(|_| Reply::Array(Vec::new())),
        _ => Err(misused(call)),
    }
}

fn no_file(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Err("ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER \
         command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store \
         users in the Redis configuration."
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::find;
    use crate::commands::testing::Bench;

    #[test]
    fn there_is_one_user() {
        let mut bench = Bench::new();
        bench.check("ACL WHOAMI", "$7\r\ndefault\r\n");
        bench.check("ACL USERS", "*1\r\n$7\r\ndefault\r\n");
        assert!(bench.run("ACL LIST").contains("user default on nopass sanitize-payload ~* &* +@all"));
        assert!(
            bench.run("ACL GETUSER default").starts_with("*12\r\n$5\r\nflags\r\n*3\r\n$2\r\non\r\n$6\r\nnopass\r\n")
        );
        bench.check("ACL GETUSER other", "$-1\r\n");
        bench.check("ACL DELUSER default", "-ERR The 'default' user cannot be removed\r\n");
        bench.check("ACL DELUSER other", ":0\r\n");
        assert!(bench.run("ACL SETUSER other on").starts_with("-ERR there is only the user 'default'"));
        bench.check("ACL LOG", "*0\r\n");
        bench.check("ACL LOG RESET", "+OK\r\n");
        bench.check("ACL LOG x", "-ERR value is not an integer or out of range\r\n");
    }

    #[test]
    fn the_user_may_run_what_there_is() {
        let mut bench = Bench::new();
        bench.check("ACL DRYRUN default ping", "+OK\r\n");
        bench.check("ACL DRYRUN default client id", "+OK\r\n");
        bench.check("ACL DRYRUN default nosuch", "-ERR Command 'nosuch' not found\r\n");
        bench.check("ACL DRYRUN other ping", "-ERR User 'other' not found\r\n");
        bench.check("ACL DRYRUN default echo", "-ERR wrong number of arguments for 'echo' command\r\n");
    }

    #[test]
    fn passwords_have_a_digit_for_every_four_bits() {
        let mut bench = Bench::new();
        bench.check("ACL GENPASS 5", "$2\r\nab\r\n");
        assert!(bench.run("ACL GENPASS").starts_with("$64\r\n"));
        assert!(bench.run("ACL GENPASS 4096").starts_with("$1024\r\n"));
        assert!(bench.run("ACL GENPASS 0").starts_with("-ERR ACL GENPASS argument must be"));
        assert!(bench.run("ACL GENPASS 4097").starts_with("-ERR ACL GENPASS argument must be"));
    }

    #[test]
    fn categories_follow_from_family_and_flags() {
        let of = |name: &str| categories(find(name.as_bytes()).unwrap());
        assert_eq!(of("ping"), ["fast", "connection"]);
        assert_eq!(of("client"), ["slow"]);
        assert_eq!(of("shutdown"), ["admin", "slow", "dangerous"]);
        assert_eq!(of("lastsave"), ["admin", "fast", "dangerous"]);
        assert_eq!(of("command"), ["slow", "connection"]);
    }

    #[test]
    fn categories_are_listed_with_their_commands() {
        let mut bench = Bench::new();
        assert!(bench.run("ACL CAT").starts_with("*22\r\n$8\r\nkeyspace\r\n"));
        let text = bench.run("ACL CAT Connection");
        assert!(
            text.contains("\r\nping\r\n") && text.contains("\r\nclient|kill\r\n") && !text.contains("\r\ninfo\r\n")
        );
        bench.check("ACL CAT nosuch", "-ERR Unknown category 'nosuch'\r\n");
    }
}
