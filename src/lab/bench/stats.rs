//! What several measurements of one thing say.

use serde::{Deserialize, Serialize};

/// Rounds from which on the longest does not count.
const MANY: usize = 7;

/// The middle of some measurements, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Seconds: half of the rounds are below.
    pub median: f64,
    /// The distance between the first and the third quartile (the middle half of the rounds), as a share of the
    /// median.
    pub spread: f64,
    /// Seconds: the least round, and
    pub least: f64,
    /// the longest, but for one where there are many: other work on the machine holds one up now and then.
    pub most: f64,
    /// How many numbers that is of.
    pub rounds: usize,
}

impl Summary {
    /// Of at least one measurement, in seconds, each of another round.
    pub fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        let middle_half = quantile(&sorted, 0.75) - quantile(&sorted, 0.25);
        let spread = if median > 0.0 { middle_half / median } else { 0.0 };
        let least = quantile(&sorted, 0.0);
        let most = quantile(&sorted[..sorted.len() - usize::from(sorted.len() >= MANY)], 1.0);
        Self { median, spread, least, most, rounds: rounds.len() }
    }
}

/// The value in the middle of at least one.
pub fn median(values: &[f64]) -> f64 {
    Summary::of(values).median
}

/// The value below which a share of the sorted values lies, straight between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(Summary::of(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
    }

    #[test]
    fn the_spread_is_the_middle_half_over_the_median() {
        let summary = Summary::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!((summary.median, summary.spread, summary.rounds), (3.0, 2.0 / 3.0, 5));
        assert_eq!((summary.least, summary.most), (1.0, 5.0));
    }

    #[test]
    fn one_outlier_moves_neither() {
        let summary = Summary::of(&[1.0, 1.0, 1.0, 1.0, 100.0]);
        assert_eq!((summary.median, summary.spread), (1.0, 0.0));
    }

    #[test]
    fn of_many_rounds_one_that_was_held_up_does_not_count() {
        let most = |rounds: usize| Summary::of(&[&vec![1.0; rounds - 1][..], &[9.0]].concat()).most;
        assert_eq!((most(MANY - 1), most(MANY)), (9.0, 1.0));
    }

    #[test]
    fn one_round_has_no_spread() {
        assert_eq!(Summary::of(&[2.0]), Summary { median: 2.0, spread: 0.0, least: 2.0, most: 2.0, rounds: 1 });
    }
}
