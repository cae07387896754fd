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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashTree(Option<Box<Levels>>);

/// One level's hashes under one parent, as they travel between replicas.
pub type Hashes = [u128; 32];

/// Made by the first row. A parent is the XOR of its children, so every level is kept up to date by the same toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Levels {
    root: u128,
    branches: Hashes,
    leaves: [Hashes; BRANCHES],
}

impl HashTree {
    /// The tree of no rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the row of this hash, or takes it away if it is there. `leaf` counts modulo [`LEAVES`].
    pub fn toggle(&mut self, leaf: usize, hash: u128) {
        let (branch, leaf) = (leaf / LEAVES_PER_BRANCH % BRANCHES, leaf % LEAVES_PER_BRANCH);
        let levels = self.0.get_or_insert_default();
        levels.leaves[branch][leaf] ^= hash;
        levels.branches[branch] ^= hash;
        levels.root ^= hash;
    }

    /// Reads of what [`toggle`](Self::toggle) changes.
    pub fn touch(&self, leaf: usize) -> u128 {
        let (branch, leaf) = (leaf / LEAVES_PER_BRANCH % BRANCHES, leaf % LEAVES_PER_BRANCH);
        self.0.as_ref().map_or(0, |levels| levels.leaves[branch][leaf] ^ levels.branches[branch] ^ levels.root)
    }

    /// The digest of all rows; 0 for none.
    pub fn root(&self) -> u128 {
        self.0.as_ref().map_or(0, |levels| levels.root)
    }

    /// The digests under the root.
    pub fn branches(&self) -> Hashes {
        self.0.as_ref().map_or([0; BRANCHES], |levels| levels.branches)
    }

    /// The digests under a branch, which counts modulo [`BRANCHES`].
    pub fn leaves(&self, branch: usize) -> Hashes {
        self.0.as_ref().map_or([0; LEAVES_PER_BRANCH], |levels| levels.leaves[branch % BRANCHES])
    }

    /// The branches in which a peer with these [`branches`](Self::branches) differs.
    pub fn differing_branches(&self, peer: &Hashes) -> Vec<usize> {
        differing(&self.branches(), peer).collect()
    }

    /// The leaves, numbered as for [`toggle`](Self::toggle), in which a peer with these [`leaves`](Self::leaves) of
    /// `branch` differs.
    pub fn differing_leaves(&self, branch: usize, peer: &Hashes) -> Vec<usize> {
        let first = branch % BRANCHES * LEAVES_PER_BRANCH;
        differing(&self.leaves(branch), peer).map(|leaf| first + leaf).collect()
    }
}

impl Default for Levels {
    fn default() -> Self {
        Levels { root: 0, branches: [0; BRANCHES], leaves: [[0; LEAVES_PER_BRANCH]; BRANCHES] }
    }
}

fn differing(mine: &Hashes, theirs: &Hashes) -> impl Iterator<Item = usize> {
    mine.iter().zip(theirs).enumerate().filter(|(_, (mine, theirs))| mine != theirs).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    type Row = (usize, u128);

    fn row() -> impl Strategy<Value = Row> {
        (0..LEAVES, any::<u128>().prop_filter("a hash of 0 is nothing", |h| *h != 0))
    }

    fn tree<'a>(rows: impl IntoIterator<Item = &'a Row>) -> HashTree {
        let mut tree = HashTree::new();
        rows.into_iter().for_each(|(leaf, hash)| tree.toggle(*leaf, *hash));
        tree
    }

    /// As a replica does it: from the root down, only where something differs.
    fn find(mine: &HashTree, theirs: &HashTree) -> Vec<usize> {
        if mine.root() == theirs.root() {
            return Vec::new();
        }
        let branches = mine.differing_branches(&theirs.branches());
        branches.into_iter().flat_map(|b| mine.differing_leaves(b, &theirs.leaves(b))).collect()
    }

    proptest! {
        #[test]
        fn order_does_not_matter(rows in prop::collection::btree_set(row(), 0..50), seed: u64) {
            let mut shuffled: Vec<Row> = rows.iter().copied().collect();
            Rng::new(seed).shuffle(&mut shuffled);
            prop_assert_eq!(tree(&rows), tree(&shuffled));
        }

        #[test]
        fn adding_and_taking_away_leaves_nothing(rows in prop::collection::vec(row(), 0..50)) {
            let gone = tree(rows.iter().chain(&rows));
            prop_assert_eq!(gone.root(), 0);
            prop_assert_eq!(find(&gone, &HashTree::new()), Vec::<usize>::new());
        }

        #[test]
        fn two_sets_differ_in_exactly_the_leaves_of_their_difference(
            common in prop::collection::btree_set(row(), 0..50),
            mine in prop::collection::btree_set(row(), 0..10),
            theirs in prop::collection::btree_set(row(), 0..10),
        ) {
            let mine: BTreeSet<Row> = common.union(&mine).copied().collect();
            let theirs: BTreeSet<Row> = common.union(&theirs).copied().collect();
            let expected: BTreeSet<usize> = mine.symmetric_difference(&theirs).map(|(leaf, _)| *leaf).collect();
            let found: BTreeSet<usize> = find(&tree(&mine), &tree(&theirs)).into_iter().collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn every_level_is_the_xor_of_the_level_below() {
        let mut rng = Rng::new(1);
        let rows: Vec<Row> = (0..5000).map(|_| (rng.below(1024) as usize, u128::from(rng.next_u64()) << 17)).collect();
        let tree = tree(&rows);
        let xor = |hashes: Hashes| hashes.into_iter().fold(0, |a, b| a ^ b);
        assert_eq!(tree.root(), xor(tree.branches()));
        (0..BRANCHES).for_each(|b| assert_eq!(tree.branches()[b], xor(tree.leaves(b))));
    }

    #[test]
    fn an_empty_tree_takes_one_word() {
        assert_eq!(size_of::<HashTree>(), size_of::<usize>());
        assert_eq!(HashTree::new().leaves(31), [0; 32]);
    }
}
