//! Golden vectors: where keys and partitions lie, written down. A change here moves data in every cluster there is; it
//! must be meant, and old layouts must stay readable.

use super::*;
use crate::base::id::{NodeId, Partition};

fn layout(nodes: &[(u64, u32, &str)], partitions: u16, replicas: u8, previous: Option<&Layout>) -> Layout {
    let member = |&(id, weight, zone): &(u64, u32, &str)| LayoutMember { id: NodeId(id), weight, zone: zone.into() };
    let members: Vec<LayoutMember> = nodes.iter().map(member).collect();
    plan(&members, Partitions::new(partitions).unwrap(), replicas, previous)
}

/// The rows of some partitions, as text.
fn rows(layout: &Layout, partitions: &[u16]) -> Vec<String> {
    let row = |partition: &u16| {
        let owners: Vec<String> = layout.owners(Partition(*partition)).iter().map(|id| id.0.to_string()).collect();
        format!("{partition}: {}", owners.join(" "))
    };
    partitions.iter().map(row).collect()
}

#[test]
fn tokens_stay_where_they_are() {
    for (key, raw) in [
        ("", 0x0000_2d06_8005_38d3),
        ("foo", 0x2f96_ab6e_5f64_077e),
        ("123456789", 0x31c3_72dc_b18b_67a1),
        ("{user1000}.following", 0x0d73_f01a_3a54_c0f4),
        ("{user1000}.followers", 0x0d73_90a5_2c22_88f4),
    ] {
        assert_eq!(Token::of(key.as_bytes()).raw(), raw, "{key}");
    }
}

#[test]
fn partitions_stay_where_they_are() {
    let of = |count, key: &[u8]| Partitions::new(count).unwrap().of_key(key);
    assert_eq!(of(256, b"foo"), Partition(190));
    assert_eq!(of(1, b"foo"), Partition(0));
    assert_eq!(of(16384, b"foo"), Partition(12182));
    assert_eq!(of(1024, b"123456789"), Partition(796));
}

#[test]
fn three_nodes_and_then_five_stay_as_they_are() {
    let nodes = [(1, 1, "a"), (2, 1, "a"), (3, 1, "a"), (4, 1, "a"), (5, 1, "a")];
    let three = layout(&nodes[..3], 256, 3, None);
    assert_eq!(rows(&three, &[0, 1, 2, 63]), ["0: 2 3 1", "1: 3 1 2", "2: 3 2 1", "63: 2 1 3"]);
    assert_eq!(three.hash(), 0xced8_5fbb_1e75_f741_b970_bac2_66b2_807e);
    let five = layout(&nodes, 256, 3, Some(&three));
    assert_eq!(rows(&five, &[0, 1, 2, 63]), ["0: 2 3 1", "1: 4 3 5", "2: 4 3 5", "63: 2 1 3"]);
    assert_eq!(five.hash(), 0x632b_7e06_f59d_6034_d66e_abd4_7ab3_6577);
}

#[test]
fn nodes_of_several_weights_and_zones_stay_as_they_are() {
    let mixed =
        [(10, 4, "north"), (20, 2, "north"), (30, 3, "south"), (40, 1, "south"), (50, 2, "east"), (60, 0, "east")];
    let mixed = layout(&mixed, 64, 3, None);
    assert_eq!(rows(&mixed, &[0, 1, 2, 63]), ["0: 30 50 10", "1: 10 50 40", "2: 50 10 30", "63: 50 20 30"]);
    assert_eq!(mixed.hash(), 0xeae2_e8e6_2b8b_1a5a_1d20_4527_3317_4e2f);
}

#[test]
fn twenty_nodes_in_four_zones_stay_as_they_are() {
    let node = |id: u64| (1000 - id, 1 + id as u32 % 3, ["a", "b", "c", "d"][id as usize % 4]);
    let layout = layout(&(0..20).map(node).collect::<Vec<_>>(), 1024, 5, None);
    assert_eq!(
        rows(&layout, &[0, 1, 63]),
        ["0: 984 993 987 998 989", "1: 991 998 989 996 994", "63: 984 986 989 999 988"]
    );
    assert_eq!(layout.hash(), 0x3f37_c093_3ae9_1f82_e346_d5d2_9c63_5df4);
}

#[test]
fn the_stand_ins_of_a_layout_stay_as_they_are() {
    let nodes = [(1, 1, "a"), (2, 1, "b"), (3, 1, "c"), (4, 1, "a"), (5, 1, "b"), (6, 1, "c"), (7, 0, "d")];
    let ring = Ring::new(layout(&nodes, 64, 2, None));
    let lists: Vec<Vec<u64>> = [0, 63].map(|p| ring.preference(Partition(p)).iter().map(|id| id.0).collect()).to_vec();
    assert_eq!(lists, [[2, 6, 4, 3, 1, 5, 7], [6, 1, 2, 3, 4, 5, 7]]);
}
