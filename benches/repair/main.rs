//! What healing costs, with three real nodes on loopback, N = 3.
//!
//! ```text
//! cargo bench --bench repair -- [--rows 1000000] [--rate 2000] [--seconds 20] [--throttle yes|no|both] [--bytes 100]
//! cargo bench --bench repair -- --heal 10000 [--rows 1000000] [--bytes 100]
//! ```
//!
//! The first: what a full repair does to clients. The third node is emptied; the latency of a steady load while it pulls
//! everything, against the same load a moment later without; with admission control and without. Nodes and load share one
//! machine: read the ratios, and take a rate that leaves most of the machine idle. Where others use the machine as well,
//! the last column: of the 99th percentiles of all seconds the middle one, which a single stall does not touch.
//!
//! The second: how long replicas that differ in so many rows need to become equal when a cut heals, and what they move.
//!
//! `REDYNAMO=path` measures another binary than the one built for this.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

mod cluster;
mod foreground;
mod heal;
mod load;

#[allow(dead_code, reason = "shared with tests")]
#[path = "../../tests/common/wire.rs"]
mod wire;

#[derive(Clone)]
struct Options {
    rows: u64,
    rate: u64,
    seconds: u64,
    bytes: usize,
    throttle: Vec<&'static str>,
    /// Rows that diverge, if it is the heal that is measured.
    diverged: u64,
}

fn options() -> Options {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let both = vec!["yes", "no"];
    let mut options = Options { rows: 1_000_000, rate: 2_000, seconds: 20, bytes: 100, throttle: both, diverged: 0 };
    for pair in words.chunks(2) {
        let value = pair.get(1).unwrap_or_else(|| panic!("{} needs a value", pair[0]));
        match pair[0].as_str() {
            "--rows" => options.rows = value.parse().unwrap(),
            "--rate" => options.rate = value.parse().unwrap(),
            "--seconds" => options.seconds = value.parse().unwrap(),
            "--bytes" => options.bytes = value.parse().unwrap(),
            "--heal" => options.diverged = value.parse().unwrap(),
            "--throttle" if value == "yes" => options.throttle = vec!["yes"],
            "--throttle" if value == "no" => options.throttle = vec!["no"],
            "--throttle" => {}
            other => panic!("unknown option {other}"),
        }
    }
    options
}

#[tokio::main]
async fn main() {
    let options = options();
    match options.diverged {
        0 => foreground::run(&options).await,
        _ => heal::run(&options).await,
    }
}
