//! The cheapest way to carry as much as possible through a network of pipes: min-cost max-flow, small and exact.
//!
//! The planner's networks are wide and shallow, and their costs are 0 or 1. So paths are not sought one by one: for
//! each length a path can have (there are few), all shortest paths are filled at once, as Dinic's algorithm does it.
//! Everything runs in the order in which pipes were laid, so one network has one answer, everywhere.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A point where pipes meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vertex(usize);

/// A pipe, to ask later how much it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pipe(usize);

/// Pipes between vertices. Pipe `i` and its way back are edges `i` and `i ^ 1`.
#[derive(Debug, Default)]
pub(super) struct Network {
    edges: Vec<Edge>,
    leaving: Vec<Vec<usize>>,
}

#[derive(Debug)]
struct Edge {
    to: usize,
    room: u64,
    cost: i64,
}

impl Network {
    /// A new vertex.
    pub(super) fn vertex(&mut self) -> Vertex {
        self.leaving.push(Vec::new());
        Vertex(self.leaving.len() - 1)
    }

    /// Lays a pipe that can carry `room` units, each at `cost`, which is not negative. A vertex tries its pipes in the
    /// order in which they were laid.
    pub(super) fn pipe(&mut self, from: Vertex, to: Vertex, room: u64, cost: u32) -> Pipe {
        let pipe = self.edges.len();
        self.edges.push(Edge { to: to.0, room, cost: i64::from(cost) });
        self.edges.push(Edge { to: from.0, room: 0, cost: -i64::from(cost) });
        self.leaving[from.0].push(pipe);
        self.leaving[to.0].push(pipe + 1);
        Pipe(pipe)
    }

    /// How much `pipe` carries.
    pub(super) fn carried(&self, pipe: Pipe) -> u64 {
        self.edges[pipe.0 ^ 1].room
    }

    /// Carries as much as possible from `source` to `sink`, at the least cost. Returns how much.
    pub(super) fn fill(&mut self, source: Vertex, sink: Vertex) -> u64 {
        let mut potential = vec![0; self.leaving.len()];
        let mut total = 0;
        while self.settle(source.0, sink.0, &mut potential) {
            loop {
                let levels = self.levels(source.0, &potential);
                if levels[sink.0] == UNREACHED {
                    break;
                }
                total += self.fill_level(source.0, sink.0, levels, &potential);
            }
        }
        total
    }

    /// Raises the potentials so that the edges on cheapest paths have reduced cost 0 and none has less (Dijkstra's
    /// algorithm on reduced costs). False if the sink cannot be reached any more.
    fn settle(&self, source: usize, sink: usize, potential: &mut [i64]) -> bool {
        let mut distance = vec![i64::MAX; potential.len()];
        let mut next = BinaryHeap::from([Reverse((0, source))]);
        distance[source] = 0;
        while let Some(Reverse((so_far, at))) = next.pop() {
            if so_far > distance[at] {
                continue;
            }
            for edge in self.open(at) {
                let there = so_far + self.reduced(at, edge, potential);
                if there < distance[edge.to] {
                    distance[edge.to] = there;
                    next.push(Reverse((there, edge.to)));
                }
            }
        }
        let farthest = distance[sink];
        if farthest == i64::MAX {
            return false;
        }
        for (potential, distance) in potential.iter_mut().zip(distance) {
            *potential += distance.min(farthest);
        }
        true
    }

    /// How many edges each vertex is away from the source, along edges of reduced cost 0.
    fn levels(&self, source: usize, potential: &[i64]) -> Vec<usize> {
        let mut levels = vec![UNREACHED; potential.len()];
        let mut queue = VecDeque::from([source]);
        levels[source] = 0;
        while let Some(at) = queue.pop_front() {
            for edge in self.open(at).filter(|edge| self.reduced(at, edge, potential) == 0) {
                if levels[edge.to] == UNREACHED {
                    levels[edge.to] = levels[at] + 1;
                    queue.push_back(edge.to);
                }
            }
        }
        levels
    }

    /// Fills paths that climb one level with each edge until there are none; returns how much they took. A dead end
    /// loses its level, so that nobody enters it again.
    fn fill_level(&mut self, source: usize, sink: usize, mut levels: Vec<usize>, potential: &[i64]) -> u64 {
        let mut tried = vec![0; levels.len()];
        let mut path: Vec<usize> = Vec::new();
        let mut total = 0;
        loop {
            let at = path.last().map_or(source, |&edge| self.edges[edge].to);
            if at == sink {
                total += self.push(&path);
                path.clear();
                continue;
            }
            let untried = &self.leaving[at][tried[at]..];
            let climbs = |edge: &Edge| {
                edge.room > 0 && levels[edge.to] == levels[at] + 1 && self.reduced(at, edge, potential) == 0
            };
            match untried.iter().position(|&edge| climbs(&self.edges[edge])) {
                Some(skipped) => {
                    path.push(untried[skipped]);
                    tried[at] += skipped;
                }
                None if path.pop().is_some() => levels[at] = UNREACHED,
                None => return total,
            }
        }
    }

    /// Sends what the narrowest edge of `path` allows.
    fn push(&mut self, path: &[usize]) -> u64 {
        let amount = path.iter().map(|&edge| self.edges[edge].room).min().unwrap_or(0);
        for &edge in path {
            self.edges[edge].room -= amount;
            self.edges[edge ^ 1].room += amount;
        }
        amount
    }

    fn open(&self, at: usize) -> impl Iterator<Item = &Edge> {
        self.leaving[at].iter().map(|&edge| &self.edges[edge]).filter(|edge| edge.room > 0)
    }

    fn reduced(&self, from: usize, edge: &Edge, potential: &[i64]) -> i64 {
        edge.cost + potential[from] - potential[edge.to]
    }
}

/// One above it is still a number, and no level.
const UNREACHED: usize = usize::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Workers with the jobs they may take and what each would cost; every job has room for one.
    fn assign(costs: &[Vec<Option<u32>>], jobs: usize) -> (u64, u64) {
        let mut net = Network::default();
        let (source, sink) = (net.vertex(), net.vertex());
        let seats: Vec<Vertex> = (0..jobs).map(|_| net.vertex()).collect();
        let mut pipes = Vec::new();
        for worker in costs {
            let vertex = net.vertex();
            net.pipe(source, vertex, 1, 0);
            for (seat, cost) in seats.iter().zip(worker) {
                pipes.extend(cost.map(|cost| (net.pipe(vertex, *seat, 1, cost), cost)));
            }
        }
        for seat in seats {
            net.pipe(seat, sink, 1, 0);
        }
        let taken = net.fill(source, sink);
        (taken, pipes.iter().map(|&(pipe, cost)| net.carried(pipe) * u64::from(cost)).sum())
    }

    /// The same by trying everything: most taken, then least cost.
    fn assign_naively(costs: &[Vec<Option<u32>>], used: u32) -> (u64, u64) {
        let Some((worker, rest)) = costs.split_first() else { return (0, 0) };
        let idle = assign_naively(rest, used);
        let busy = worker.iter().enumerate().filter(|(job, _)| used & (1 << job) == 0).filter_map(|(job, cost)| {
            let (taken, sum) = assign_naively(rest, used | (1 << job));
            cost.map(|cost| (taken + 1, sum + u64::from(cost)))
        });
        busy.fold(
            idle,
            |best, other| if (other.0, Reverse(other.1)) > (best.0, Reverse(best.1)) { other } else { best },
        )
    }

    proptest! {
        #[test]
        fn assignments_are_as_many_and_as_cheap_as_trying_everything_finds(
            costs in prop::collection::vec(prop::collection::vec(prop::option::of(0u32..4), 4), 1..5)
        ) {
            prop_assert_eq!(assign(&costs, 4), assign_naively(&costs, 0));
        }
    }

    #[test]
    fn what_is_carried_is_limited_by_the_narrowest_cut() {
        let mut net = Network::default();
        let (source, middle, sink) = (net.vertex(), net.vertex(), net.vertex());
        let wide = net.pipe(source, middle, 10, 0);
        let cheap = net.pipe(middle, sink, 2, 0);
        let dear = net.pipe(middle, sink, 3, 1);
        assert_eq!(net.fill(source, sink), 5);
        assert_eq!([wide, cheap, dear].map(|pipe| net.carried(pipe)), [5, 2, 3]);
    }
}
