//! Lists that read their words in a way of their own. Each takes the words of one statement and the text until now, and
//! gives the new text; an empty text until now begins a list.

use std::collections::{BTreeMap, BTreeSet};

use super::value;

/// Reads the words of one statement; see [`super::Kind::Words`].
pub type Reader = fn(&[String], &str) -> Result<String, String>;

/// Most addresses that one `bind` may name, as in Redis.
const MAX_BIND_ADDRESSES: usize = 16;

/// `bind`: each statement replaces the addresses; one empty word means none.
pub(super) fn bind(words: &[String], _previous: &str) -> Result<String, String> {
    if words.len() > MAX_BIND_ADDRESSES {
        return Err("Too many bind addresses specified.".to_owned());
    }
    Ok(non_empty(words).join(" "))
}

/// `join`: statements add up. Blanks and commas part addresses, so that one environment variable holds several.
pub(super) fn join(words: &[String], previous: &str) -> Result<String, String> {
    let mut addresses: Vec<String> = previous.split_whitespace().map(str::to_owned).collect();
    for address in words.iter().flat_map(|word| word.split([',', ' '])).filter(|address| !address.is_empty()) {
        let address = with_port(address)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses.join(" "))
}

/// `save`: statements of a file add up; one empty word means never.
pub(super) fn save(words: &[String], previous: &str) -> Result<String, String> {
    let wrong = || Err("Invalid save parameters".to_owned());
    if words.iter().all(String::is_empty) {
        return Ok(String::new());
    }
    let (pairs, []) = words.as_chunks::<2>() else { return wrong() };
    let mut text: Vec<String> = previous.split_whitespace().map(str::to_owned).collect();
    for [seconds, changes] in pairs {
        match (seconds.parse::<i64>(), changes.parse::<i64>()) {
            (Ok(seconds @ 1..), Ok(changes @ 0..)) => text.extend([seconds.to_string(), changes.to_string()]),
            _ => return wrong(),
        }
    }
    Ok(text.join(" "))
}

/// `client-output-buffer-limit`: classes that a statement does not name keep their limits.
pub(super) fn output_limits(words: &[String], previous: &str) -> Result<String, String> {
    let (groups, []) = words.as_chunks::<4>() else {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    };
    let mut text: Vec<String> = previous.split_whitespace().map(str::to_owned).collect();
    for [class, hard, soft, seconds] in groups {
        let class = match class.to_ascii_lowercase().as_str() {
            "replica" => "slave".to_owned(),
            class @ ("normal" | "slave" | "pubsub") => class.to_owned(),
            _ => return Err("Invalid client class specified in buffer limit configuration.".to_owned()),
        };
        let (Some(hard), Some(soft), Ok(seconds)) = (value::bytes(hard), value::bytes(soft), seconds.parse::<u32>())
        else {
            return Err("Error in hard, soft or soft_seconds setting in buffer limit configuration.".to_owned());
        };
        let limits = [class.clone(), hard.to_string(), soft.to_string(), seconds.to_string()];
        match text.chunks_exact_mut(4).find(|group| group.first() == Some(&class)) {
            Some(group) => group.clone_from_slice(&limits),
            None => text.extend(limits),
        }
    }
    Ok(text.join(" "))
}

/// Most replicas that a quorum may ask for; see `replicas`.
const MAX_QUORUM: u8 = 16;

/// `database-quorum`: databases that a statement does not name keep their pairs; nothing, or one empty word, means that
/// none has any. The text is in order of the databases.
pub(super) fn database_quorums(words: &[String], previous: &str) -> Result<String, String> {
    if words.iter().all(String::is_empty) {
        return Ok(String::new());
    }
    let previous: Vec<String> = previous.split_whitespace().map(str::to_owned).collect();
    let (known, given) = (previous.as_chunks::<3>().0, words.as_chunks::<3>());
    let (given, []) = given else {
        return Err("Each database takes three numbers: database, R, W".to_owned());
    };
    let quorums = known.iter().chain(given).map(database_quorum).collect::<Result<BTreeMap<_, _>, _>>()?;
    let texts: Vec<String> = quorums.iter().map(|(db, (read, write))| format!("{db} {read} {write}")).collect();
    Ok(texts.join(" "))
}

fn database_quorum([db, read, write]: &[String; 3]) -> Result<(u8, (u8, u8)), String> {
    let number = |text: &str| text.parse::<u8>().ok();
    let quorum = |text: &str| number(text).filter(|n| (1..=MAX_QUORUM).contains(n));
    match (number(db), quorum(read), quorum(write)) {
        (None, ..) => Err(format!("'{db}' is no database: databases with quorums of their own are 0 to 255")),
        (Some(db), Some(read), Some(write)) => Ok((db, (read, write))),
        _ => Err(format!("R and W of database {db} must be between 1 and {MAX_QUORUM}")),
    }
}

/// `strict-databases`: each statement replaces the list, which is in order; one empty word means none, `all` every one.
pub(super) fn strict_databases(words: &[String], _previous: &str) -> Result<String, String> {
    if matches!(words, [word] if word.eq_ignore_ascii_case("all")) {
        return Ok("all".to_owned());
    }
    let number = |word: &str| word.parse::<u8>().map_err(|_| format!("'{word}' is no database: name 0 to 255, or all"));
    let databases: BTreeSet<u8> = non_empty(words).iter().map(|word| number(word)).collect::<Result<_, _>>()?;
    Ok(databases.iter().map(u8::to_string).collect::<Vec<_>>().join(" "))
}

/// `cluster-announce-hostname`: letters, digits, hyphens and dots.
pub(super) fn host_name(words: &[String], _previous: &str) -> Result<String, String> {
    let name = words.join(" ");
    if name.len() >= 256 {
        return Err("Hostnames must be less than 256 characters".to_owned());
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
        return Err("Hostnames may only contain alphanumeric characters, hyphens or dots".to_owned());
    }
    Ok(name)
}

/// `oom-score-adj-values`: three numbers.
pub(super) fn oom_scores(words: &[String], _previous: &str) -> Result<String, String> {
    if words.len() != 3 {
        return Err("wrong number of arguments".to_owned());
    }
    if !words.iter().all(|word| word.parse::<i64>().is_ok_and(|score| (-2000..=2000).contains(&score))) {
        return Err("Invalid oom-score-adj-values, elements must be between -2000 and 2000.".to_owned());
    }
    Ok(words.join(" "))
}

/// `latency-tracking-info-percentiles`: numbers from 0 to 100; one empty word means none.
pub(super) fn percentiles(words: &[String], _previous: &str) -> Result<String, String> {
    let mut text = Vec::new();
    for word in non_empty(words) {
        match word.parse::<f64>() {
            Ok(percentile) if (0.0..=100.0).contains(&percentile) => text.push(percentile.to_string()),
            Ok(_) => {
                return Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".to_owned());
            }
            Err(_) => return Err("Invalid latency-tracking-info-percentiles parameters".to_owned()),
        }
    }
    Ok(text.join(" "))
}

/// `notify-keyspace-events`: classes of events in the order in which Redis prints them, `A` for all of `g$lshzxetd`.
pub(super) fn keyspace_events(words: &[String], _previous: &str) -> Result<String, String> {
    const ALL: &str = "g$lshzxetd";
    let [word] = words else { return Err("wrong number of arguments".to_owned()) };
    if !word.chars().all(|class| "AKEmn".contains(class) || ALL.contains(class)) {
        return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned());
    }
    let given = |classes: &str| -> String { classes.chars().filter(|class| word.contains(*class)).collect() };
    let all = word.contains('A') || given(ALL) == ALL;
    let events = if all { "A".to_owned() } else { given("g$lshzxetdn") };
    Ok(events + &given("KEm"))
}

/// `replicaof`: a host and a port; `no one` means none.
pub(super) fn replica_of(words: &[String], _previous: &str) -> Result<String, String> {
    let [host, port] = words else { return Err("wrong number of arguments".to_owned()) };
    if host.eq_ignore_ascii_case("no") && port.eq_ignore_ascii_case("one") {
        return Ok(String::new());
    }
    let port = port.parse::<u16>().map_err(|_| "Invalid master port".to_owned())?;
    Ok(format!("{host} {port}"))
}

fn non_empty(words: &[String]) -> Vec<String> {
    words.iter().filter(|word| !word.is_empty()).cloned().collect()
}

/// An address with a port: `host`, `host:port`, `[v6]`, `[v6]:port`. Without one it is the peer port's default.
fn with_port(address: &str) -> Result<String, String> {
    let wrong = || format!("'{address}' is not host:port, the address and peer port of a node of the cluster");
    let (host, port) = match address.rsplit_once(':') {
        _ if address.ends_with(']') => (address, None),
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    };
    let port = port.map_or(Ok(super::typed::DEFAULT_PEER_PORT), |port| port.parse::<u16>().map_err(|_| wrong()))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if port == 0 || host.is_empty() || (bare.is_none() && host.contains([':', '[', ']'])) {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(read: Reader, line: &str, previous: &str) -> Result<String, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        read(&words, previous)
    }

    #[test]
    fn joins_add_up_and_get_the_default_peer_port() {
        assert_eq!(run(join, "a:1", "").as_deref(), Ok("a:1"));
        assert_eq!(run(join, "b,c:2 [::1]:3", "a:1").as_deref(), Ok("a:1 b:16379 c:2 [::1]:3"));
        assert_eq!(run(join, "a:1", "a:1").as_deref(), Ok("a:1"));
        for wrong in [":1", "a:", "a:x", "a:70000", "a:0", "::1", "a]b:1"] {
            assert!(run(join, wrong, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn saves_add_up_and_an_empty_one_clears() {
        assert_eq!(run(save, "300 100", "3600 1").as_deref(), Ok("3600 1 300 100"));
        assert_eq!(run(save, "", "3600 1").as_deref(), Ok(""));
        for wrong in ["1", "0 1", "1 -1", "a b"] {
            assert_eq!(run(save, wrong, ""), Err("Invalid save parameters".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn output_limits_change_only_the_classes_they_name() {
        let default = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        let expected = "normal 1024 0 5 slave 1 2 3 pubsub 33554432 8388608 60";
        assert_eq!(run(output_limits, "normal 1kb 0 5 Replica 1 2 3", default).as_deref(), Ok(expected));
        for wrong in ["normal 1 2", "master 1 2 3", "normal x 2 3", "normal 1 2 -3"] {
            assert!(run(output_limits, wrong, default).is_err(), "{wrong}");
        }
    }

    #[test]
    fn quorums_of_databases_replace_each_other_one_by_one() {
        assert_eq!(run(database_quorums, "5 2 2 0 1 3", "").as_deref(), Ok("0 1 3 5 2 2"));
        assert_eq!(run(database_quorums, "5 1 3", "0 1 3 5 2 2").as_deref(), Ok("0 1 3 5 1 3"));
        assert_eq!(run(database_quorums, "1 1 1 1 3 3", "").as_deref(), Ok("1 3 3"), "the later one stands");
        assert_eq!(run(database_quorums, "", "0 1 3").as_deref(), Ok(""));
        assert_eq!(database_quorums(&[], "0 1 3").as_deref(), Ok(""));
        for wrong in ["0", "0 1", "0 1 3 5", "256 1 1", "-1 1 1", "x 1 1", "0 0 1", "0 1 0", "0 17 1", "0 1 x", "0  1"]
        {
            assert!(run(database_quorums, wrong, "0 1 3").is_err(), "{wrong}");
        }
    }

    #[test]
    fn classes_of_events_print_as_redis_prints_them() {
        let cases = [("KEA", "AKE"), ("Elg", "glE"), ("", ""), ("g$lshzxetdKE", "AKE"), ("Kmn", "nKm"), ("AmK", "AKm")];
        for (given, printed) in cases {
            assert_eq!(run(keyspace_events, given, "").as_deref(), Ok(printed), "{given}");
        }
        assert!(run(keyspace_events, "KEy", "").is_err());
    }

    #[test]
    fn percentiles_scores_and_replicas_are_checked() {
        assert_eq!(run(percentiles, "50 99.90 100", "").as_deref(), Ok("50 99.9 100"));
        assert_eq!(run(percentiles, "", "50").as_deref(), Ok(""));
        assert!(run(percentiles, "101", "").is_err());
        assert!(run(percentiles, "NaN", "").is_err());
        assert_eq!(run(oom_scores, "0 200 800", "").as_deref(), Ok("0 200 800"));
        assert!(run(oom_scores, "0 200 2001", "").is_err());
        assert_eq!(run(replica_of, "NO ONE", "h 1").as_deref(), Ok(""));
        assert_eq!(run(replica_of, "h 6379", "").as_deref(), Ok("h 6379"));
        assert!(run(replica_of, "h 70000", "").is_err());
    }
}
