//! How a run is cut into submissions. A submission that keeps a device busy for long freezes the desktop that it draws,
//! and after some seconds the system's watchdog ends it. So none should take longer than a budget, by measured times: the
//! first run waits for each submission, starting with a small one, and learns what its nodes take; later runs follow that
//! without waiting, each submission encoded while the device works on the one before, and correct it by their own times.

use std::ops::Range;

use crate::graph::{Graph, Node};

/// Seconds that a submission may take: a few pictures of a desktop.
pub(super) const BUDGET: f64 = 0.1;
/// Operations a second of a device of which nothing is known: a slow one.
const SLOW: f64 = 5e10;
/// How much more the next submission of a first run may hold than the last one's time allows: that was mostly the time
/// that a submission takes by itself, if it was small.
const GROWTH: f64 = 8.0;
/// Times that differ by less than this factor from what was expected change nothing.
const TOLERANCE: f64 = 1.5;

/// What is known of a session's times.
#[derive(Debug)]
pub(super) struct Pace {
    /// What each node costs beside the others.
    costs: Vec<f64>,
    budget: f64,
    /// Seconds of each node, once a run has been measured.
    seconds: Option<Vec<f64>>,
}

impl Pace {
    /// Nothing known but the graph: its nodes cost operations, and the elements that they read and write.
    pub fn of(graph: &Graph) -> Self {
        let cost = |node: &Node| {
            let (inputs, output) = (graph.types(&node.inputs), graph.ty(node.output));
            let read: usize = (0..inputs.len()).map(|i| node.op.reads(&inputs, output, i)).sum();
            node.op.flops(&inputs, output) as f64 + (read + output.device_len()) as f64
        };
        Self::new(graph.nodes.iter().map(cost).collect())
    }

    fn new(costs: Vec<f64>) -> Self {
        Self { costs, budget: BUDGET, seconds: None }
    }

    /// The same with another budget, in seconds.
    pub fn within(self, budget: f64) -> Self {
        Self { budget, ..self }
    }

    /// The submissions of a run, once a run has been measured.
    pub fn submissions(&self) -> Option<Vec<Range<usize>>> {
        let seconds = self.seconds.as_ref()?;
        let mut submissions: Vec<Range<usize>> = Vec::new();
        let mut sum = 0.0;
        for (node, taken) in seconds.iter().enumerate() {
            sum += taken;
            match submissions.last_mut() {
                Some(last) if sum <= self.budget => last.end = node + 1,
                _ => {
                    submissions.push(node..node + 1);
                    sum = *taken;
                }
            }
        }
        Some(submissions)
    }

    /// Measures a first run: `submit` submits some nodes and returns the seconds that they took.
    pub fn measure<E>(&mut self, mut submit: impl FnMut(Range<usize>) -> Result<f64, E>) -> Result<(), E> {
        let mut rate = SLOW;
        let mut seconds = Vec::with_capacity(self.costs.len());
        while seconds.len() < self.costs.len() {
            let start = seconds.len();
            let mut cost = self.costs[start];
            let more = self.costs[start + 1..].iter().take_while(|next| {
                cost += **next;
                cost <= self.budget * rate
            });
            let nodes = start..start + 1 + more.count();
            let cost: f64 = self.costs[nodes.clone()].iter().sum();
            let taken = submit(nodes.clone())?;
            // Nodes that cost nothing share the time alike.
            let share = |one: &f64| if cost > 0.0 { one / cost } else { 1.0 / nodes.len() as f64 };
            seconds.extend(self.costs[nodes.clone()].iter().map(|one| taken * share(one)));
            // A clock may stand still.
            rate = (cost / taken.max(1e-9)).clamp(rate / GROWTH, rate * GROWTH);
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

    /// The submissions of the first run on a device that does so many operations a second, and those of the next.
    fn paced(costs: &[f64], rate: f64) -> [Vec<Range<usize>>; 2] {
        let (mut pace, mut first) = (Pace::new(costs.to_vec()), Vec::new());
        let measured = pace.measure(|nodes| {
            first.push(nodes.clone());
            Ok::<_, ()>(costs[nodes].iter().sum::<f64>() / rate)
        });
        measured.unwrap();
        [first, pace.submissions().unwrap()]
    }

    fn longest(submissions: &[Range<usize>], costs: &[f64], rate: f64) -> f64 {
        let seconds = submissions.iter().map(|nodes| costs[nodes.clone()].iter().sum::<f64>() / rate);
        seconds.fold(0.0, f64::max)
    }

    #[test]
    fn no_submission_of_a_slow_device_takes_longer_than_the_budget() {
        let costs: Vec<f64> = (0..300).map(|i| 1e9 * f64::from(1 + i % 3)).collect();
        let [first, next] = paced(&costs, 1e11);
        assert!(longest(&first, &costs, 1e11) <= BUDGET && longest(&next, &costs, 1e11) <= BUDGET);
        assert!(next.len() < 2 * 600 / 10, "{} submissions of 6 s", next.len());
    }

    #[test]
    fn a_fast_device_takes_all_at_once_after_a_few_careful_steps() {
        let costs = vec![1e9; 500];
        assert_eq!(paced(&costs, 1e14).map(|submissions| submissions.len()), [4, 1]);
    }

    #[test]
    fn every_node_is_submitted_once_and_in_order() {
        for (count, rate) in [(1, 1e9), (7, 1e3), (50, 1e11)] {
            for submissions in paced(&vec![1e8; count], rate) {
                assert!(submissions.into_iter().flatten().eq(0..count));
            }
        }
    }

    #[test]
    fn a_node_that_costs_nothing_is_no_division_by_zero() {
        assert_eq!(paced(&[0.0, 0.0], 1e9).map(|submissions| submissions.len()), [1, 1]);
    }

    #[test]
    fn a_device_that_became_slower_gets_less_at_a_time() {
        let mut pace = Pace::new(vec![1e9; 10]);
        pace.measure(|nodes| Ok::<_, ()>(0.009 * nodes.len() as f64)).unwrap();
        assert_eq!(pace.submissions().unwrap().len(), 1);
        pace.correct(0.11);
        assert_eq!(pace.submissions().unwrap().len(), 1, "hardly slower");
        pace.correct(0.4);
        assert_eq!(pace.submissions().unwrap().len(), 5);
    }
}
