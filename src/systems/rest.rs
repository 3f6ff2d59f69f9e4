//! Pictures that do not fit together: parts of a batch and, of one picture, windows.

use std::ops::Range;

use super::kit::Kit;
use super::windows::Windows;
use crate::error::{Error, Result};

/// The pictures of a batch that are still to be made.
#[derive(Debug)]
pub(super) struct Rest {
    batch: usize,
    done: usize,
    /// Most pictures of a part.
    at_once: usize,
    /// Height and width of a state that may be drawn in windows.
    state: Option<[usize; 2]>,
    /// Those that it is drawn in, where one picture does not fit as a whole.
    pub windows: Option<Windows>,
}

impl Rest {
    /// All at once, for now.
    pub fn new(batch: usize) -> Self {
        Self { batch, done: 0, at_once: batch, state: None, windows: None }
    }

    /// In windows of a state of this height and width, where one picture does not fit otherwise.
    pub fn or_in_windows(&mut self, state: [usize; 2]) {
        self.state = Some(state);
    }

    /// Parts of no more pictures than this.
    pub fn at_most(&mut self, pictures: usize) {
        self.at_once = self.at_once.min(pictures);
    }

    /// The next part's pictures, its number, and how many parts there are.
    pub fn next_part(&self) -> Option<(Range<usize>, (usize, usize))> {
        let range = self.done..self.batch.min(self.done + self.at_once);
        let part = (self.done.div_ceil(self.at_once), self.batch.div_ceil(self.at_once));
        (!range.is_empty()).then_some((range, part))
    }

    /// The next part has been made.
    pub fn made(&mut self) {
        self.done = self.batch.min(self.done + self.at_once);
    }

    /// Parts of half the pictures where those of the next one do not fit, and a word of it; of one picture the next
    /// smaller windows, which the loop tells of that draws in them.
    ///
    /// # Errors
    /// Any other, or if there is one picture and no smaller window.
    pub fn halve_for(&mut self, kit: &mut Kit<'_>, error: Error) -> Result<()> {
        let count = self.at_once.min(self.batch - self.done);
        match error {
            Error::TooLarge(why) if self.halve() => {
                let at_once = self.at_once;
                kit.warn(why.on(format!("{count} pictures at once do not fit, so they are made {at_once} at a time")));
                Ok(())
            }
            Error::TooLarge(why) if self.shrink() => {
                self.windows.iter_mut().for_each(|windows| windows.why = Some(why.clone()));
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Smaller windows, if there are any.
    fn shrink(&mut self) -> bool {
        let smaller = |state| Windows::smaller(state, self.windows.as_ref().map(Windows::side));
        match self.state.and_then(smaller) {
            None => false,
            smaller => {
                self.windows = smaller;
                true
            }
        }
    }

    /// Parts of half the pictures, if those of the next one can be halved.
    fn halve(&mut self) -> bool {
        let count = self.at_once.min(self.batch - self.done);
        self.at_once = count.div_ceil(2);
        count > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_does_not_fit_is_made_in_parts_that_do() {
        let (mut rest, mut made) = (Rest::new(11), Vec::new());
        while let Some((range, part)) = rest.next_part() {
            if range.len() > 3 {
                assert!(rest.halve());
                continue;
            }
            made.push((range, part));
            rest.made();
        }
        assert_eq!(made, [(0..3, (0, 4)), (3..6, (1, 4)), (6..9, (2, 4)), (9..11, (3, 4))]);
    }

    #[test]
    fn one_picture_that_does_not_fit_is_not_halved() {
        let mut rest = Rest::new(2);
        assert!(rest.halve());
        assert_eq!(rest.next_part(), Some((0..1, (0, 2))));
        assert!(!rest.halve());
    }

    #[test]
    fn one_picture_is_drawn_in_ever_smaller_windows_where_that_can_be() {
        let mut rest = Rest::new(1);
        assert!(!rest.shrink());
        rest.or_in_windows([200, 40]);
        for side in [128, 64] {
            assert!(rest.shrink());
            assert_eq!(rest.windows.as_ref().map(|windows| windows.size), Some([side, 40]));
        }
        assert!(!rest.shrink());
    }
}
