//! Which steps of a schedule are done: all, or where a picture is given or two networks share the work, some.

use std::ops::Range;

use crate::error::{Error, Field, Remedy, Result, counted};

/// A part of a schedule's steps.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Portion {
    /// All of them.
    #[default]
    Whole,
    /// This share of the steps, from 0 to 1, at the end: diffusers' `strength`.
    Last(f64),
    /// Those before this share of the noise is gone, from 0 to 1: diffusers' `denoising_end`.
    Before(f64),
    /// Those from there on: diffusers' `denoising_start`.
    From(f64),
}

impl Portion {
    /// Its evaluations among those at `timesteps`, of a number of steps with `order` evaluations each, by a model that
    /// was trained with `train` timesteps.
    ///
    /// # Errors
    /// If there are none, or the share is none.
    pub(super) fn span(self, timesteps: &[f32], [steps, order, train]: [usize; 3]) -> Result<Range<usize>> {
        let all = timesteps.len();
        let (share, field) = match self {
            Self::Whole => return Ok(0..all),
            Self::Last(share) => (share, Field::Strength),
            Self::Before(share) | Self::From(share) => (share, Field::RefinerStart),
        };
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::usage(format!("{share} does not lie from 0 to 1")).of(field));
        }
        let cutoff = (train as f64 - share * train as f64).round_ties_even() as f32;
        let span = match self {
            Self::Before(_) => 0..timesteps.iter().filter(|timestep| **timestep >= cutoff).count(),
            Self::From(_) => {
                let left = timesteps.iter().filter(|timestep| **timestep < cutoff).count();
                // Of a step's two evaluations both are done or none; the last step has one.
                let whole = if order == 2 && left.is_multiple_of(2) { left + 1 } else { left };
                all.saturating_sub(whole)..all
            }
            _ => ((steps - (steps as f64 * share) as usize) * order).min(all)..all,
        };
        if !span.is_empty() {
            return Ok(span);
        }
        let remedies = match self {
            Self::Before(_) | Self::Last(_) => [Remedy::More(field), Remedy::More(Field::Steps)],
            _ => [Remedy::Less(field), Remedy::More(Field::Steps)],
        };
        Err(Error::usage(format!("{share} leaves none of {}", counted(steps, "step"))).of(field).remedies(remedies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(portion: Portion, steps: usize, order: usize) -> Result<Range<usize>> {
        let each = (0..steps).flat_map(|i| vec![(999 - i * (1000 / steps)) as f32; order]);
        let timesteps: Vec<f32> = each.skip(order - 1).collect();
        portion.span(&timesteps, [steps, order, 1000])
    }

    #[test]
    fn a_strength_is_that_share_of_the_steps_at_the_end() {
        assert_eq!(span(Portion::Last(0.3), 50, 1).unwrap(), 35..50);
        assert_eq!(span(Portion::Last(0.5), 4, 2).unwrap(), 4..7);
        assert_eq!(span(Portion::Last(1.0), 4, 1).unwrap(), 0..4);
    }

    #[test]
    fn what_one_part_leaves_the_other_does() {
        assert_eq!(span(Portion::Before(0.8), 40, 1).unwrap(), 0..32);
        assert_eq!(span(Portion::From(0.8), 40, 1).unwrap(), 32..40);
        // The second part begins with a step's first evaluation.
        assert_eq!(span(Portion::From(0.5), 5, 2).unwrap().start % 2, 0);
    }

    #[test]
    fn a_part_without_a_step_is_refused() {
        for (portion, word) in
            [(Portion::Last(0.01), "strength 0.01 leaves none of 50 steps"), (Portion::Last(1.5), "from 0 to 1")]
        {
            let error = span(portion, 50, 1).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(span(Portion::From(f64::NAN), 50, 1).is_err());
    }
}
