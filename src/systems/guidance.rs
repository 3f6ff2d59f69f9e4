//! Classifier-free guidance (Ho and Salimans 2022), by any number of texts.

/// How the rows of a picture become one prediction: the first, and differences between two of them, each times a
/// number.
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    /// Rows of a picture.
    pub rows: usize,
    /// `(scale, of, against)`: `scale * (row of - row against)`.
    pub terms: Vec<(f32, usize, usize)>,
    /// How far the prediction's spread goes back to that of its last row, from 0, not at all, to 1.
    pub rescale: f32,
}

impl Guidance {
    /// One text, whose prediction is taken as it is.
    pub fn none() -> Self {
        Self { rows: 1, terms: Vec::new(), rescale: 0.0 }
    }

    /// The unconditional row, then the text's: `unconditional + scale * (conditional - unconditional)`.
    pub fn by_text(scale: f32) -> Self {
        Self { rows: 2, terms: vec![(scale, 1, 0)], rescale: 0.0 }
    }

    /// The scales, if each row but the first has one, against the row before it: what a device can do by itself.
    pub(super) fn chained(&self) -> Option<Vec<f32>> {
        let scale = |(row, term): (usize, &(f32, usize, usize))| (term.1, term.2) == (row + 1, row);
        let is_chain = self.terms.len() + 1 == self.rows && self.terms.iter().enumerate().all(scale);
        (is_chain && self.rescale == 0.0).then(|| self.terms.iter().map(|(scale, ..)| *scale).collect())
    }

    /// The same with each prediction drawn so far towards the spread of the text's: Lin et al., "Common Diffusion Noise
    /// Schedules and Sample Steps are Flawed" (2023), section 3.4; diffusers' `rescale_noise_cfg`.
    pub fn rescaled(self, share: Option<f32>) -> Self {
        Self { rescale: share.unwrap_or(0.0), ..self }
    }

    /// The predictions of so many pictures from those of their rows, which stand row by row: the first row of every
    /// picture, the second of every picture, .. All of it is `factor` times as strong, as a sampler has it.
    pub(super) fn of(&self, all: Vec<f32>, pictures: usize, factor: f32) -> Vec<f32> {
        if self.terms.is_empty() && self.rows == 1 {
            return all;
        }
        let each = all.len() / self.rows;
        let row = |index: usize| &all[index * each..][..each];
        let first = if self.rescale == 0.0 { factor } else { 1.0 };
        let mut guided = row(0).to_vec();
        for &(scale, of, against) in &self.terms {
            let differences = row(of).iter().zip(row(against)).map(|(a, b)| first * scale * (a - b));
            guided.iter_mut().zip(differences).for_each(|(value, difference)| *value += difference);
        }
        if self.rescale == 0.0 {
            return guided;
        }
        let one = each / pictures;
        for (guided, by_text) in guided.chunks_exact_mut(one).zip(row(self.rows - 1).chunks_exact(one)) {
            let (wanted, found) = (deviation(by_text), deviation(guided));
            let change = if found > 0.0 { self.rescale * (wanted / found) + (1.0 - self.rescale) } else { 1.0 };
            guided.iter_mut().for_each(|value| *value *= change);
        }
        guided.iter_mut().zip(row(0)).for_each(|(value, without)| *value = without + factor * (*value - without));
        guided
    }
}

fn deviation(values: &[f32]) -> f32 {
    let mean = |values: &mut dyn Iterator<Item = f64>, count| values.sum::<f64>() / count as f64;
    let middle = mean(&mut values.iter().map(|v| f64::from(*v)), values.len());
    mean(&mut values.iter().map(|v| (f64::from(*v) - middle).powi(2)), values.len()).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_goes_from_the_unconditional_output_through_the_conditional_one() {
        assert_eq!(Guidance::by_text(3.0).of(vec![1.0, 0.0, 2.0, -1.0], 2, 1.0), [4.0, -3.0]);
        assert_eq!(Guidance::by_text(1.5).of(vec![1.0, 0.0, 2.0, -1.0], 2, 2.0), [4.0, -3.0]);
        assert_eq!(Guidance::none().of(vec![1.0, 2.0], 2, 2.0), [1.0, 2.0]);
    }

    #[test]
    fn two_texts_guide_each_by_its_own_scale() {
        // InstructPix2Pix: nothing, the picture alone, the picture and the text.
        let guidance = Guidance { rows: 3, terms: vec![(2.0, 1, 0), (10.0, 2, 1)], rescale: 0.0 };
        assert_eq!(guidance.of(vec![1.0, 1.5, 1.75], 1, 1.0), [1.0 + 2.0 * 0.5 + 10.0 * 0.25]);
    }

    #[test]
    fn differences_to_the_row_before_are_a_chain() {
        assert_eq!(Guidance::none().chained(), Some(vec![]));
        assert_eq!(
            Guidance { rows: 3, terms: vec![(2.0, 1, 0), (10.0, 2, 1)], rescale: 0.0 }.chained(),
            Some(vec![2.0, 10.0])
        );
        assert_eq!(Guidance { rows: 3, terms: vec![(2.0, 1, 0), (10.0, 2, 0)], rescale: 0.0 }.chained(), None);
        assert_eq!(Guidance { rows: 2, terms: vec![], rescale: 0.0 }.chained(), None);
        assert_eq!(Guidance::by_text(2.0).rescaled(Some(0.5)).chained(), None);
    }

    #[test]
    fn each_pictures_spread_goes_back_to_that_of_its_text() {
        // Two pictures of two values: nothing, and the text's.
        let rows = vec![0.0, 0.0, 1.0, 3.0, 1.0, -1.0, 2.0, 6.0];
        let all_the_way = Guidance::by_text(3.0).rescaled(Some(1.0)).of(rows.clone(), 2, 1.0);
        assert_eq!(all_the_way, [1.0, -1.0, 2.0, 6.0]);
        let half = Guidance::by_text(2.0).rescaled(Some(0.5)).of(rows.clone(), 2, 1.0);
        assert_eq!(half[..2], [1.5, -1.5]);
        // A sampler's factor goes on from the unconditional row, past what is rescaled.
        let past = Guidance::by_text(3.0).rescaled(Some(1.0)).of(rows, 2, 2.0);
        assert_eq!(past, [2.0, -2.0, 3.0, 9.0]);
    }
}
