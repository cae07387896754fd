//! The digest by which two replicas find where their rows of a region differ.
//!
//! Three levels: a root, 32 branches, 1,024 leaves. A leaf stands for a range of tokens and is the XOR of the hashes of
//! the rows in it, so adding and taking away a row is the same operation, order does not matter and equal sets are equal
//! trees. Row hashes are 128 bits, keyed by a secret of the cluster, and made by the caller: without the key nobody can
//! choose rows that cancel out.
//!
//! Lives in memory, at most 17 KiB a region and nothing for an empty one; rebuilt from a scan of the rows.

/// Leaves of a tree: how finely it tells where two replicas differ.
pub const LEAVES: usize = 1024;

/// Branches of a tree.
pub const BRANCHES: usize = 32;

/// Leaves under one branch.
pub const LEAVES_PER_BRANCH: usize = LEAVES / BRANCHES;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct HashTree {
    /// Made by the first row, leaf by branch.
    branches: Option<Box<[[u128; LEAVES_PER_BRANCH]; BRANCHES]>>,
    sums: Sums,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    root: u128,
    branches: [u128; BRANCHES],
}

impl HashTree {
    /// The tree of no rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the row of this hash, or takes it away if it is there. `leaf` counts modulo [`LEAVES`].
    pub fn toggle(&mut self, leaf: usize, hash: u128) {
        let (branch, leaf) = (leaf / LEAVES_PER_BRANCH % BRANCHES, leaf % LEAVES_PER_BRANCH);
        let leaves = self.branches.get_or_insert_with(|| Box::new([[0; LEAVES_PER_BRANCH]; BRANCHES]));
        leaves[branch][leaf] ^= hash;
        self.sums.branches[branch] ^= hash;
        self.sums.root ^= hash;
    }

    /// Replaces a row: takes `old` away, adds `new`.
    pub fn replace(&mut self, leaf: usize, old: u128, new: u128) {
        self.toggle(leaf, old ^ new);
    }
}
