//! Bytes as no client library sends them: nearly right, wrong, and wild.

use redynamo::base::rng::Rng;

/// A stream of one to six parts, each from an honest request to noise, with some bytes changed.
pub fn stream(rng: &mut Rng) -> Vec<u8> {
    let mut wire = Vec::new();
    for _ in 0..=rng.below(6) {
        part(rng, &mut wire);
    }
    if rng.chance(0.3) {
        (0..=rng.below(3)).for_each(|_| spoil(rng, &mut wire));
    }
    if rng.chance(0.2) {
        wire.truncate(rng.below(wire.len() as u64 + 1) as usize);
    }
    wire
}

/// A request that every decoder takes.
pub fn honest(rng: &mut Rng) -> Vec<u8> {
    let count = if rng.chance(0.1) { rng.below(40) } else { rng.below(6) } + 1;
    let mut wire = format!("*{count}\r\n").into_bytes();
    for _ in 0..count {
        let length = if rng.chance(0.05) { rng.below(3_000) } else { rng.below(12) };
        wire.extend_from_slice(format!("${length}\r\n").as_bytes());
        wire.extend((0..length).map(|_| byte(rng)));
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

fn part(rng: &mut Rng, wire: &mut Vec<u8>) {
    match rng.below(9) {
        0..=3 => wire.extend(honest(rng)),
        4 => inline(rng, wire),
        5 => wire.extend((0..rng.below(40)).map(|_| byte(rng))),
        6 => header(rng, wire),
        7 => wire.extend(b"*1\r\n".repeat(rng.below(60) as usize)),
        _ => long(rng, wire),
    }
}

/// A header with a number that should not be there, at times in the middle of a request.
fn header(rng: &mut Rng, wire: &mut Vec<u8>) {
    const NUMBERS: [&str; 19] = [
        "0",
        "-0",
        "-1",
        "-2",
        "1",
        "+1",
        "01",
        "10",
        "11",
        "16384",
        "16385",
        "1048576",
        "1048577",
        "536870912",
        "536870913",
        "2147483648",
        "9223372036854775807",
        "99999999999999999999999",
        " 1",
    ];
    wire.extend_from_slice(
        rng.pick(&["*", "$", "*1\r\n$", "*3\r\n$1\r\na\r\n$", "*2\r\n:", "%", "*1\r\n\r\n"]).unwrap().as_bytes(),
    );
    wire.extend_from_slice(rng.pick(&NUMBERS).unwrap().as_bytes());
    wire.extend_from_slice(rng.pick(&["\r\n", "\r\n", "\n", "\r", "\r\r\n", "\0\r\n", ""]).unwrap().as_bytes());
}

fn inline(rng: &mut Rng, wire: &mut Vec<u8>) {
    const WORDS: [&str; 12] = ["word", " ", "\t", "\"", "'", "\\", "\\x41", "\\x4", "a b", "\0", "\x0b", "\\'"];
    (0..rng.below(8)).for_each(|_| wire.extend_from_slice(rng.pick(&WORDS).unwrap().as_bytes()));
    wire.extend_from_slice(rng.pick(&["\r\n", "\n", "\r", ""]).unwrap().as_bytes());
}

/// A line about as long as the short limit of the tests.
fn long(rng: &mut Rng, wire: &mut Vec<u8>) {
    wire.extend_from_slice(rng.pick(&["", "*", "*1\r\n$", "*1\r\n"]).unwrap().as_bytes());
    let length = 90 + rng.below(20) as usize;
    wire.extend(std::iter::repeat_n(*rng.pick(b"1x*").unwrap(), length));
    wire.extend_from_slice(rng.pick(&["\r\n", "\n", ""]).unwrap().as_bytes());
}

fn spoil(rng: &mut Rng, wire: &mut Vec<u8>) {
    let at = rng.below(wire.len() as u64 + 1) as usize;
    match rng.below(3) {
        0 => wire.insert(at, byte(rng)),
        _ if at == wire.len() => {}
        1 => drop(wire.remove(at)),
        _ => wire[at] = byte(rng),
    }
}

fn byte(rng: &mut Rng) -> u8 {
    if rng.chance(0.7) { *rng.pick(b"*$\r\n0123456789-+:\"'\\ \0ax").unwrap() } else { rng.below(256) as u8 }
}
