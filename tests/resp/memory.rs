//! What a client can make the decoder hold is in proportion to what it has sent, whatever it announces.

use bytes::BytesMut;
use redynamo::base::rng::Rng;
use redynamo::resp::{Decoder, Limits};
use tikv_jemalloc_ctl::thread;

/// An empty argument is six bytes on the wire, a handle of 32 in memory, in a vector that has grown by doubling.
const PER_BYTE: u64 = 16;

/// The first read's room, and the most that one line of 64 KiB can become: inline words of one letter.
const CONSTANT: u64 = 3 * 1024 * 1024;

/// Bytes that this thread has allocated and not freed.
fn live() -> u64 {
    let allocated = thread::allocatedp::read().unwrap().get();
    allocated.wrapping_sub(thread::deallocatedp::read().unwrap().get())
}

/// Feeds `wire` in `pieces` of a size, holding that memory stays in proportion at every step.
fn assert_bounded(name: &str, limits: Limits, wire: &[u8], piece: usize) {
    let before = live();
    let (mut decoder, mut buffer, mut received) = (Decoder::new(limits), BytesMut::new(), 0);
    for piece in wire.chunks(piece) {
        buffer.extend_from_slice(piece);
        received += piece.len() as u64;
        loop {
            let decoded = decoder.decode(&mut buffer);
            let held = live().wrapping_sub(before);
            assert!(held <= PER_BYTE * received + CONSTANT, "{name}: {held} bytes held for {received} received");
            match decoded {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

#[test]
fn announcements_cost_nothing_before_they_are_kept() {
    let usual = Limits::default();
    for (name, wire) in [
        ("count", b"*1048576\r\n".to_vec()),
        ("length", b"*1\r\n$536870912\r\n".to_vec()),
        ("both", b"*1048576\r\n$536870912\r\nabc".to_vec()),
        ("many counts", b"*1048576\r\n$1\r\na\r\n".repeat(1_000)),
        ("empty arguments", [b"*1048576\r\n".to_vec(), b"$0\r\n\r\n".repeat(100_000)].concat()),
        ("small arguments", [b"*100000\r\n".to_vec(), b"$3\r\nabc\r\n".repeat(100_000)].concat()),
        ("a long bulk", [b"*2\r\n$536870912\r\n".to_vec(), vec![b'x'; 3_000_000]].concat()),
        ("a long line", vec![b'x'; 200_000]),
        ("a hidden line", [b"\0".to_vec(), vec![b'\n'; 200_000]].concat()),
        ("empty lines", b"\r\n".repeat(100_000)),
        ("empty arrays", b"*0\r\n".repeat(100_000)),
        ("inline words", [b"a ".repeat(30_000), b"\n".to_vec()].concat()),
    ] {
        for piece in [1_009, 16_384] {
            assert_bounded(name, usual, &wire, piece);
        }
    }
}

#[test]
fn noise_holds_no_more_than_it_is_long() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let wire: Vec<u8> = (0..40).flat_map(|_| crate::hostile::stream(&mut rng)).collect();
        assert_bounded("noise", Limits::default(), &wire, 1 + rng.below(600) as usize);
    }
}

/// A request in many pieces costs no more than its length: bytes allocated over its whole course, copies included.
#[test]
fn a_long_request_in_small_reads_is_not_decoded_again_and_again() {
    let wire = [b"*50001\r\n$5\r\nRPUSH\r\n".to_vec(), b"$10\r\n0123456789\r\n".repeat(50_000)].concat();
    let before = thread::allocatedp::read().unwrap().get();
    let (requests, error) = crate::decode(Limits::default(), wire.chunks(256));
    let allocated = thread::allocatedp::read().unwrap().get() - before;
    assert_eq!((requests.len(), requests[0].len(), error), (1, 50_001, None));
    assert!(allocated < 20 * wire.len() as u64, "{allocated} bytes allocated for {}", wire.len());
}
