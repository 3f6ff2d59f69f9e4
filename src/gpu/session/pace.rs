//! How a run is cut into submissions. A submission that keeps a device busy for long freezes the desktop that it
//! draws, and after some seconds the system's watchdog ends it. So none should take longer than a budget, by measured
//! times: the first run waits for each submission, starting with a small one, and learns what its nodes take; later
//! runs follow that without waiting, each submission encoded while the device works on the one before, and correct it
//! by their own times. A node that takes longer than the budget by itself is submitted by tiles, where its kernel can
//! be.

use std::ops::Range;

use crate::graph::{Graph, Node};
use crate::ops::Launch;

/// Seconds that a submission may take: a few pictures of a desktop.
pub(super) const BUDGET: f64 = 0.1;
/// Operations a second of a device of which nothing is known: a slow one.
const SLOW: f64 = 5e10;
/// How much more the next submission of a first run may hold than the last one's time allows: that was mostly the time
/// that a submission takes by itself, if it was small.
const GROWTH: f64 = 8.0;
/// Times that differ by less than this factor from what was expected change nothing.
const TOLERANCE: f64 = 1.5;

/// What a submission has the device do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Share {
    /// Some nodes, one after the other.
    Nodes(Range<usize>),
    /// Some tiles of one node.
    Tiles(usize, Range<usize>),
}

/// What is known of a session's times.
#[derive(Debug)]
pub(super) struct Pace {
    /// What each node costs beside the others.
    costs: Vec<f64>,
    /// In how many tiles each can be cut: one, if it cannot.
    tiles: Vec<usize>,
    budget: f64,
    /// Seconds of each node, once a run has been measured.
    seconds: Option<Vec<f64>>,
}

impl Pace {
    /// Nothing known but the graph, whose nodes cost operations and the elements that they read and write, and how
    /// each of them is launched.
    pub fn of(graph: &Graph, launches: &[Launch]) -> Self {
        let cost = |node: &Node| {
            let (inputs, output) = (graph.types(&node.inputs), graph.ty(node.output));
            let read: usize = (0..inputs.len()).map(|i| node.op.reads(&inputs, output, i)).sum();
            node.op.flops(&inputs, output) as f64 + (read + output.device_len()) as f64
        };
        let tiles = launches.iter().map(|launch| launch.tiles.map_or(1, |tiles| tiles.count));
        Self::new(graph.nodes.iter().map(cost).collect(), tiles.collect())
    }

    fn new(costs: Vec<f64>, tiles: Vec<usize>) -> Self {
        Self { costs, tiles, budget: BUDGET, seconds: None }
    }

    /// Another budget, in seconds, and a first run to come.
    pub fn set_budget(&mut self, budget: f64) {
        (self.budget, self.seconds) = (budget, None);
    }

    /// The submissions of a run, once a run has been measured.
    pub fn submissions(&self) -> Option<Vec<Share>> {
        let seconds = self.seconds.as_ref()?;
        let mut submissions = Vec::new();
        let mut sum = 0.0;
        for (node, (taken, tiles)) in seconds.iter().zip(&self.tiles).enumerate() {
            sum += taken;
            // As many as are within the budget, and all parts alike.
            let fit = (self.budget / taken * *tiles as f64) as usize;
            let parts = tiles.div_ceil(fit.max(1));
            match submissions.last_mut() {
                _ if parts > 1 => {
                    let part = |i: usize| Share::Tiles(node, i * tiles / parts..(i + 1) * tiles / parts);
                    submissions.extend((0..parts).map(part));
                }
                Some(Share::Nodes(last)) if sum <= self.budget => last.end = node + 1,
                _ => {
                    submissions.push(Share::Nodes(node..node + 1));
                    sum = *taken;
                }
            }
        }
        Some(submissions)
    }

    /// Measures a first run: `submit` submits a share and returns the seconds that it took.
    pub fn measure<E>(&mut self, mut submit: impl FnMut(Share) -> Result<f64, E>) -> Result<(), E> {
        let mut rate = SLOW;
        let mut timed = |share: Share, cost: f64, rate: &mut f64| {
            let taken = submit(share)?;
            // A clock may stand still.
            *rate = (cost / taken.max(1e-9)).clamp(*rate / GROWTH, *rate * GROWTH);
            Ok(taken)
        };
        let mut seconds = Vec::with_capacity(self.costs.len());
        while seconds.len() < self.costs.len() {
            let start = seconds.len();
            let mut cost = self.costs[start];
            if cost > self.budget * rate && self.tiles[start] > 1 {
                let (tiles, mut done, mut sum) = (self.tiles[start], 0, 0.0);
                let each = cost / tiles as f64;
                while done < tiles {
                    let fit = (self.budget * rate / each) as usize;
                    let part = done..tiles.min(done + fit.max(1));
                    done = part.end;
                    let cost = each * part.len() as f64;
                    sum += timed(Share::Tiles(start, part), cost, &mut rate)?;
                }
                seconds.push(sum);
                continue;
            }
            let more = self.costs[start + 1..].iter().take_while(|next| {
                cost += **next;
                cost <= self.budget * rate
            });
            let nodes = start..start + 1 + more.count();
            let cost: f64 = self.costs[nodes.clone()].iter().sum();
            let taken = timed(Share::Nodes(nodes.clone()), cost, &mut rate)?;
            // Nodes that cost nothing share the time alike.
            let share = |one: &f64| if cost > 0.0 { one / cost } else { 1.0 / nodes.len() as f64 };
            seconds.extend(self.costs[nodes.clone()].iter().map(|one| taken * share(one)));
        }
        self.seconds = Some(seconds);
        Ok(())
    }

    /// Takes note of how long a later run took.
    pub fn correct(&mut self, taken: f64) {
        let Some(seconds) = &mut self.seconds else { return };
        let factor = taken / seconds.iter().sum::<f64>();
        if factor.is_finite() && !(1.0 / TOLERANCE..TOLERANCE).contains(&factor) {
            seconds.iter_mut().for_each(|one| *one *= factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The submissions of the first run on a device that does so many operations a second, and those of the next, of
    /// nodes that cost so much and have so many tiles.
    fn paced(costs: &[f64], tiles: &[usize], rate: f64) -> [Vec<Share>; 2] {
        let (mut pace, mut first) = (Pace::new(costs.to_vec(), tiles.to_vec()), Vec::new());
        let measured = pace.measure(|share| {
            first.push(share.clone());
            Ok::<_, ()>(cost(&share, costs, tiles) / rate)
        });
        measured.unwrap();
        [first, pace.submissions().unwrap()]
    }

    fn cost(share: &Share, costs: &[f64], tiles: &[usize]) -> f64 {
        match share {
            Share::Nodes(nodes) => costs[nodes.clone()].iter().sum(),
            Share::Tiles(node, part) => costs[*node] * part.len() as f64 / tiles[*node] as f64,
        }
    }

    fn longest(submissions: &[Share], costs: &[f64], tiles: &[usize], rate: f64) -> f64 {
        submissions.iter().map(|share| cost(share, costs, tiles) / rate).fold(0.0, f64::max)
    }

    #[test]
    fn no_submission_of_a_slow_device_takes_longer_than_the_budget() {
        let costs: Vec<f64> = (0..300).map(|i| 1e9 * f64::from(1 + i % 3)).collect();
        let tiles = [1; 300];
        let [first, next] = paced(&costs, &tiles, 1e11);
        assert!([&first, &next].map(|all| longest(all, &costs, &tiles, 1e11) <= BUDGET) == [true; 2]);
        assert!(next.len() < 2 * 600 / 10, "{} submissions of 6 s", next.len());
    }

    #[test]
    fn a_node_that_takes_longer_than_the_budget_is_cut_into_tiles() {
        let (costs, tiles) = ([1e9, 5e11, 1e9, 1e9], [1, 512, 1, 7]);
        let [first, next] = paced(&costs, &tiles, 1e12);
        assert!([&first, &next].map(|all| longest(all, &costs, &tiles, 1e12) <= BUDGET) == [true; 2]);
        assert_eq!(next.len(), 1 + 6 + 1, "{next:?}");
        assert_eq!((&next[0], &next[7]), (&Share::Nodes(0..1), &Share::Nodes(2..4)));
        assert_eq!(next[1], Share::Tiles(1, 0..85));
    }

    #[test]
    fn a_fast_device_takes_all_at_once_after_a_few_careful_steps() {
        let (costs, tiles) = (vec![1e9; 500], vec![9; 500]);
        assert_eq!(paced(&costs, &tiles, 1e14).map(|submissions| submissions.len()), [4, 1]);
    }

    #[test]
    fn every_tile_of_every_node_is_submitted_once_and_in_order() {
        for (count, tiles, rate) in [(1, 1, 1e9), (7, 3, 1e3), (50, 100, 1e9), (50, 1, 1e11)] {
            for submissions in paced(&vec![1e8; count], &vec![tiles; count], rate) {
                let all = submissions.into_iter().flat_map(|share| match share {
                    Share::Nodes(nodes) => nodes.flat_map(|node| (0..tiles).map(move |tile| (node, tile))).collect(),
                    Share::Tiles(node, part) => part.map(|tile| (node, tile)).collect::<Vec<_>>(),
                });
                assert!(all.eq((0..count * tiles).map(|i| (i / tiles, i % tiles))), "{count} nodes of {tiles} tiles");
            }
        }
    }

    #[test]
    fn a_node_that_costs_nothing_is_no_division_by_zero() {
        assert_eq!(paced(&[0.0, 0.0], &[1, 5], 1e9).map(|submissions| submissions.len()), [1, 1]);
    }

    #[test]
    fn a_device_that_became_slower_gets_less_at_a_time() {
        let mut pace = Pace::new(vec![1e9; 10], vec![1; 10]);
        pace.measure(|share| Ok::<_, ()>(9e-12 * cost(&share, &[1e9; 10], &[1; 10]))).unwrap();
        assert_eq!(pace.submissions().unwrap().len(), 1);
        pace.correct(0.11);
        assert_eq!(pace.submissions().unwrap().len(), 1, "hardly slower");
        pace.correct(0.4);
        assert_eq!(pace.submissions().unwrap().len(), 5);
    }
}
