//! Classifier-free guidance (Ho and Salimans 2022), by any number of texts.

/// How the rows of a picture become one prediction: the first, and differences between two of them, each times a
/// number.
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    /// Rows of a picture.
    pub rows: usize,
    /// `(scale, of, against)`: `scale * (row of - row against)`.
    pub terms: Vec<(f32, usize, usize)>,
}

impl Guidance {
    /// One text, whose prediction is taken as it is.
    pub fn none() -> Self {
        Self { rows: 1, terms: Vec::new() }
    }

    /// The unconditional row, then the text's: `unconditional + scale * (conditional - unconditional)`.
    pub fn by_text(scale: f32) -> Self {
        Self { rows: 2, terms: vec![(scale, 1, 0)] }
    }

    /// The scales, if each row but the first has one, against the row before it: what a device can do by itself.
    pub(super) fn chained(&self) -> Option<Vec<f32>> {
        let scale = |(row, term): (usize, &(f32, usize, usize))| (term.1, term.2) == (row + 1, row);
        let is_chain = self.terms.len() + 1 == self.rows && self.terms.iter().enumerate().all(scale);
        is_chain.then(|| self.terms.iter().map(|(scale, ..)| *scale).collect())
    }

    /// The predictions of pictures from those of their rows, which stand row by row: the first row of every picture,
    /// the second of every picture, .. All scales are `factor` times as large, as a sampler has it.
    pub(super) fn of(&self, all: Vec<f32>, factor: f32) -> Vec<f32> {
        if self.terms.is_empty() && self.rows == 1 {
            return all;
        }
        let each = all.len() / self.rows;
        let row = |index: usize| &all[index * each..][..each];
        let mut guided = row(0).to_vec();
        for &(scale, of, against) in &self.terms {
            let differences = row(of).iter().zip(row(against)).map(|(a, b)| factor * scale * (a - b));
            guided.iter_mut().zip(differences).for_each(|(value, difference)| *value += difference);
        }
        guided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_goes_from_the_unconditional_output_through_the_conditional_one() {
        assert_eq!(Guidance::by_text(3.0).of(vec![1.0, 0.0, 2.0, -1.0], 1.0), [4.0, -3.0]);
        assert_eq!(Guidance::by_text(1.5).of(vec![1.0, 0.0, 2.0, -1.0], 2.0), [4.0, -3.0]);
        assert_eq!(Guidance::none().of(vec![1.0, 2.0], 2.0), [1.0, 2.0]);
    }

    #[test]
    fn two_texts_guide_each_by_its_own_scale() {
        // InstructPix2Pix: nothing, the picture alone, the picture and the text.
        let guidance = Guidance { rows: 3, terms: vec![(2.0, 1, 0), (10.0, 2, 1)] };
        assert_eq!(guidance.of(vec![1.0, 1.5, 1.75], 1.0), [1.0 + 2.0 * 0.5 + 10.0 * 0.25]);
    }

    #[test]
    fn differences_to_the_row_before_are_a_chain() {
        assert_eq!(Guidance::none().chained(), Some(vec![]));
        assert_eq!(Guidance { rows: 3, terms: vec![(2.0, 1, 0), (10.0, 2, 1)] }.chained(), Some(vec![2.0, 10.0]));
        assert_eq!(Guidance { rows: 3, terms: vec![(2.0, 1, 0), (10.0, 2, 0)] }.chained(), None);
        assert_eq!(Guidance { rows: 2, terms: vec![] }.chained(), None);
    }
}
