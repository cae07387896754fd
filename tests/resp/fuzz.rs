//! Every chunking of a stream comes to what a slow decoder makes of the whole. `REDYNAMO_FUZZ=1000000` runs that many
//! streams, `REDYNAMO_FUZZ_SEED=n` the one that failed.

use crate::{Outcome, decode, hostile, reference};
use bytes::Bytes;
use redis_protocol::resp2::types::BytesFrame;
use redynamo::base::rng::Rng;
use redynamo::resp::Limits;

const DEFAULT_RUNS: u64 = 50_000;

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn hostile_streams_in_any_chunking_come_to_what_the_slow_decoder_says() {
    let seeds = match number_from("REDYNAMO_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("REDYNAMO_FUZZ").unwrap_or(DEFAULT_RUNS),
    };
    let (mut requests, mut errors) = (0, 0);
    for seed in seeds.clone() {
        let (done, error) = run(seed);
        requests += done.len();
        errors += usize::from(error.is_some());
    }
    let runs = seeds.count();
    assert!(runs == 1 || (requests > runs / 2 && errors > runs / 10), "{requests} requests, {errors} errors");
}

fn run(seed: u64) -> Outcome {
    let mut rng = Rng::new(seed);
    let limits = limits(&mut rng);
    let wire = hostile::stream(&mut rng);
    let expected = reference::decode(limits, &wire);
    assert_eq!(decode(limits, [&wire[..]]), expected, "seed {seed}, whole: {:?}", Bytes::from(wire));
    for _ in 0..2 {
        let pieces = cut(&mut rng, &wire);
        assert_eq!(decode(limits, pieces), expected, "seed {seed}, cut: {:?}", Bytes::from(wire));
    }
    expected
}

fn limits(rng: &mut Rng) -> Limits {
    let usual = Limits { authenticated: rng.chance(0.5), ..Limits::default() };
    if rng.chance(0.5) { usual } else { Limits { max_bulk: 2_000, max_arguments: 20, max_inline: 100, ..usual } }
}

fn cut<'a>(rng: &mut Rng, mut wire: &'a [u8]) -> Vec<&'a [u8]> {
    let longest = *rng.pick(&[1, 2, 7, 100]).unwrap();
    let mut pieces = Vec::new();
    while !wire.is_empty() {
        let (piece, rest) = wire.split_at((1 + rng.below(longest) as usize).min(wire.len()));
        pieces.push(piece);
        wire = rest;
    }
    pieces
}

#[test]
fn a_stream_split_at_any_place_comes_to_the_same() {
    for seed in 0..300 {
        let wire = hostile::stream(&mut Rng::new(seed));
        let expected = reference::decode(Limits::default(), &wire);
        for at in 0..=wire.len().min(500) {
            let (first, second) = wire.split_at(at);
            assert_eq!(decode(Limits::default(), [first, second]), expected, "seed {seed} at {at}");
        }
    }
}

#[test]
fn another_decoder_reads_the_same_requests() {
    let mut both = 0;
    for seed in 0..5_000 {
        let mut rng = Rng::new(seed);
        let wire = if seed % 2 == 0 { hostile::honest(&mut rng) } else { hostile::stream(&mut rng) };
        let ours = decode(Limits::default(), [&wire[..]]).0.into_iter().next();
        if let (Some(ours), Some(theirs)) = (ours, by_redis_protocol(wire.clone().into())) {
            assert_eq!(ours, theirs, "seed {seed}");
            both += 1;
        }
        assert!(seed % 2 == 1 || both > seed / 2, "honest requests are read by both");
    }
}

/// The first request if it is an array of bulks, and not an empty one, which is no request.
fn by_redis_protocol(wire: Bytes) -> Option<Vec<Bytes>> {
    let Some((BytesFrame::Array(frames), _)) = redis_protocol::resp2::decode::decode_bytes(&wire).ok()? else {
        return None;
    };
    let bulk = |frame| if let BytesFrame::BulkString(bytes) = frame { Some(bytes) } else { None };
    frames.into_iter().map(bulk).collect::<Option<Vec<_>>>().filter(|arguments| !arguments.is_empty())
}

#[test]
fn arrays_nested_without_end_are_refused_at_once() {
    let wire = b"*1\r\n".repeat(100_000);
    let (requests, error) = decode(Limits::default(), wire.chunks(1_000));
    assert_eq!(requests.len(), 0);
    assert_eq!(&error.unwrap().reply()[..], b"ERR Protocol error: expected '$', got '*'");
}
