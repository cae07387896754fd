//! What decoding a request and encoding a reply cost, with redis-protocol as the peer. Run by `cargo bench --bench resp`.

use bytes::{Bytes, BytesMut};
use divan::{Bencher, black_box};
use redis_protocol::resp2;
use redynamo::resp::{Decoder, Limits, Protocol, Reply, encode};

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000012345\r\n";
const VALUE: [u8; 100] = [b'v'; 100];

fn main() {
    divan::main();
}

fn set() -> Vec<u8> {
    [b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000012345\r\n$100\r\n".as_slice(), &VALUE, b"\r\n"].concat()
}

/// Decodes `requests` of `wire` as a connection does: the bytes are read into one buffer that is used again.
fn decode(bencher: Bencher, wire: &[u8], requests: usize) {
    let mut decoder = Decoder::new(Limits::default());
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    bencher.counter(divan::counter::ItemsCount::new(requests)).bench_local(|| {
        buffer.reserve(wire.len());
        buffer.extend_from_slice(wire);
        for _ in 0..requests {
            let request = decoder.decode(&mut buffer);
            black_box(&request);
        }
    });
}

fn decode_by_peer(bencher: Bencher, wire: &[u8], requests: usize) {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    bencher.counter(divan::counter::ItemsCount::new(requests)).bench_local(|| {
        buffer.reserve(wire.len());
        buffer.extend_from_slice(wire);
        for _ in 0..requests {
            let request = resp2::decode::decode_bytes_mut(&mut buffer);
            black_box(&request);
        }
    });
}

#[divan::bench]
fn decode_get(bencher: Bencher) {
    decode(bencher, GET, 1);
}

#[divan::bench]
fn decode_get_by_peer(bencher: Bencher) {
    decode_by_peer(bencher, GET, 1);
}

#[divan::bench]
fn decode_set(bencher: Bencher) {
    decode(bencher, &set(), 1);
}

#[divan::bench]
fn decode_set_by_peer(bencher: Bencher) {
    decode_by_peer(bencher, &set(), 1);
}

#[divan::bench]
fn decode_pipeline_of_16_gets(bencher: Bencher) {
    decode(bencher, &GET.repeat(16), 16);
}

#[divan::bench]
fn decode_pipeline_of_16_gets_by_peer(bencher: Bencher) {
    decode_by_peer(bencher, &GET.repeat(16), 16);
}

#[divan::bench]
fn decode_inline_ping(bencher: Bencher) {
    decode(bencher, b"PING\r\n", 1);
}

fn encode_again(bencher: Bencher, reply: &Reply) {
    let mut out = BytesMut::with_capacity(1024);
    bencher.bench_local(|| {
        out.clear();
        encode(black_box(reply), Protocol::Resp2, &mut out);
    });
}

fn encode_by_peer(bencher: Bencher, frame: &resp2::types::BytesFrame) {
    let mut out = vec![0; 1024];
    bencher.bench_local(|| resp2::encode::encode_bytes(&mut out, black_box(frame), false));
}

#[divan::bench]
fn encode_bulk(bencher: Bencher) {
    encode_again(bencher, &Reply::bulk(Bytes::from_static(&VALUE)));
}

#[divan::bench]
fn encode_bulk_by_peer(bencher: Bencher) {
    encode_by_peer(bencher, &resp2::types::BytesFrame::BulkString(Bytes::from_static(&VALUE)));
}

#[divan::bench]
fn encode_integer(bencher: Bencher) {
    encode_again(bencher, &Reply::Int(12_345));
}

#[divan::bench]
fn encode_integer_by_peer(bencher: Bencher) {
    encode_by_peer(bencher, &resp2::types::BytesFrame::Integer(12_345));
}

#[divan::bench]
fn encode_ok(bencher: Bencher) {
    encode_again(bencher, &Reply::ok());
}

#[divan::bench]
fn encode_array_of_100_bulks(bencher: Bencher) {
    encode_again(bencher, &Reply::array((0..100).map(|_| Reply::bulk(Bytes::from_static(&VALUE[..16])))));
}
