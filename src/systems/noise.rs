//! The noise that pictures begin with: seeded, given, or mixed with another seed's.

use std::ops::Range;

use super::request::{Request, Variation};
use crate::error::{Error, Field, Remedy, Result};
use crate::rng::Generator;
use crate::tensor::{Shape, Tensor};

/// The first noise of some pictures, of unit variance.
pub struct First {
    /// The noise itself, once it is known.
    noise: Option<Tensor>,
    /// For each picture what it is mixed with, and that one's share.
    variations: Vec<(Generator, f64)>,
}

impl First {
    /// Of these pictures of the batch, whose states together have this shape.
    ///
    /// # Errors
    /// If the request gives noise of another shape.
    pub fn of(request: &Request, state: &Shape, range: &Range<usize>) -> Result<Self> {
        Ok(Self { noise: given(request, state, range)?, ..Self::seeded(request, range) })
    }

    /// The same where none is given.
    pub(super) fn seeded(request: &Request, range: &Range<usize>) -> Self {
        let variations = range.clone().filter_map(|index| request.variation_of(index));
        let seeded = |variation: Variation| (request.rng.seeded(variation.seed), variation.strength);
        Self { noise: None, variations: variations.map(seeded).collect() }
    }

    /// Draws it from the pictures' generators, unless it is given or drawn.
    pub(super) fn draw(&mut self, generators: &mut [Generator], shape: &Shape) -> &Tensor {
        let variations = std::mem::take(&mut self.variations);
        self.noise.get_or_insert_with(|| {
            let mut noise = noise_of(generators, shape);
            let one = shape.with_batch(1);
            for ((mut other, share), noise) in variations.into_iter().zip(noise.data.chunks_exact_mut(one.len())) {
                let mixed = slerp(share, noise, &normal(&mut other, &one), &one);
                noise.copy_from_slice(&mixed);
            }
            noise
        })
    }
}

/// Checks what a request says of a variation.
///
/// # Errors
/// If its share is none, or its noise is given.
pub(super) fn check(request: &Request) -> Result<()> {
    let Some(Variation { strength, .. }) = request.variation else { return Ok(()) };
    if !(0.0..=1.0).contains(&strength) {
        return Err(Error::usage(format!("{strength} does not lie from 0 to 1")).of(Field::VariationStrength));
    }
    if request.init_latents.is_some() {
        let error = Error::usage("is for seeded noise").of(Field::VariationStrength);
        return Err(error.remedies([Remedy::Without(Field::InitLatents)]));
    }
    Ok(())
}

/// What a request gives to start from instead of noise, for these pictures of the batch, whose state has this shape.
fn given(request: &Request, state: &Shape, range: &Range<usize>) -> Result<Option<Tensor>> {
    let Some(given) = &request.init_latents else { return Ok(None) };
    let wanted = match *state.dims() {
        [_, height, width, channels] => Shape::from([request.batch, channels, height, width]),
        _ => state.with_batch(request.batch),
    };
    if given.shape != wanted {
        let sizes = [Field::Width, Field::Height, Field::Batch].map(Remedy::Other);
        let what = format!("hold {}, but this picture needs {wanted}", given.shape);
        return Err(Error::usage(what).of(Field::InitLatents).remedies(sizes));
    }
    let each = wanted.len() / request.batch;
    let part = Tensor::new(wanted.with_batch(range.len()), given.data[range.start * each..range.end * each].to_vec());
    if wanted.rank() == 4 { part.to_channels_last().map(Some) } else { Ok(Some(part)) }
}

/// Every picture's own noise, for a state of this shape.
pub(super) fn noise_of(generators: &mut [Generator], shape: &Shape) -> Tensor {
    let one = shape.with_batch(1);
    Tensor::new(shape.clone(), generators.iter_mut().flat_map(|generator| normal(generator, &one)).collect())
}

/// One picture's noise: drawn in PyTorch's order, channels first, and put in the state's.
pub(super) fn normal(generator: &mut Generator, one: &Shape) -> Vec<f32> {
    let drawn = generator.normal(one.len());
    let &[_, height, width, channels] = one.dims() else { return drawn };
    let pixels = height * width;
    (0..pixels)
        .flat_map(|pixel| (0..channels).map(move |channel| channel * pixels + pixel))
        .map(|at| drawn[at])
        .collect()
}

/// From one picture's noise towards another along the arc between them, each column of each channel by itself: what
/// the web UI's `slerp` does over the second of three dimensions.
fn slerp(share: f64, from: &[f32], to: &[f32], one: &Shape) -> Vec<f32> {
    // A state without rows is one column.
    let lines = if let [_, height, _, _] = one.dims() { *height } else { from.len() };
    let columns = from.len() / lines;
    let column = |of: &[f32], at: usize| of.iter().skip(at).step_by(columns).map(|v| f64::from(*v)).collect::<Vec<_>>();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let factors = |at: usize| {
        let (from, to) = (column(from, at), column(to, at));
        let angle = (dot(&from, &to) / (dot(&from, &from) * dot(&to, &to)).sqrt()).clamp(-1.0, 1.0).acos();
        // Between what points the same or the opposite way there is no arc.
        if angle.sin() < 1e-6 { (1.0 - share, share) } else { arc(share, angle) }
    };
    let factors: Vec<_> = (0..columns).map(factors).collect();
    let mixed = |(at, (from, to)): (usize, (&f32, &f32))| {
        let (keep, add) = factors[at % columns];
        (keep * f64::from(*from) + add * f64::from(*to)) as f32
    };
    from.iter().zip(to).enumerate().map(mixed).collect()
}

fn arc(share: f64, angle: f64) -> (f64, f64) {
    (((1.0 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::NoiseSource;

    #[test]
    fn a_given_state_is_that_of_the_parts_own_pictures() {
        let given = Tensor::new([3, 4, 1, 1], (0..12).map(|v| v as f32).collect());
        let request = Request { init_latents: Some(given), batch: 3, ..Request::default() };
        let mut first = First::of(&request, &[1, 1, 1, 4].into(), &(1..2)).unwrap();
        let part = first.draw(&mut [], &[1, 1, 1, 4].into());
        assert_eq!((part.shape.dims(), &part.data), (&[1, 1, 1, 4][..], &vec![4.0, 5.0, 6.0, 7.0]));
        let error = First::of(&request, &[1, 2, 2, 4].into(), &(1..2)).err().unwrap().to_string();
        assert!(error.contains("init latents hold [3, 4, 1, 1]") && error.contains("needs [3, 4, 2, 2]"), "{error}");
    }

    #[test]
    fn noise_is_drawn_channels_first_and_kept_channels_last() {
        let mut generators = [NoiseSource::default().seeded(1), NoiseSource::default().seeded(2)];
        let noise = noise_of(&mut generators, &[2, 2, 3, 4].into());
        for (seed, noise) in [1, 2].into_iter().zip(noise.data.chunks_exact(24)) {
            let drawn = Tensor::new([1, 4, 2, 3], NoiseSource::default().seeded(seed).normal(24));
            assert_eq!(noise, drawn.to_channels_last().unwrap().data);
        }
        // A state without pixels is as it is drawn.
        assert_eq!(
            normal(&mut NoiseSource::default().seeded(1), &[1, 5, 3].into()),
            NoiseSource::default().seeded(1).normal(15)
        );
    }

    #[test]
    fn a_variation_goes_from_a_seeds_noise_to_anothers_at_the_same_variance() {
        let shape = Shape::from([1, 16, 16, 4]);
        let noise = |strength| {
            let variation = Some(Variation { seed: 2, strength });
            let request = Request { variation, ..Request::default() };
            let mut first = First::of(&request, &shape, &(0..1)).unwrap();
            first.draw(&mut [request.rng.seeded(1)], &shape).data.clone()
        };
        let seeded = |seed| normal(&mut NoiseSource::default().seeded(seed), &shape);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(&noise(0.0), &seeded(1)) && near(&noise(1.0), &seeded(2)));
        let half = noise(0.5);
        let variance = half.iter().map(|v| v * v).sum::<f32>() / half.len() as f32;
        assert!((0.85..1.15).contains(&variance), "{variance}");
    }
}
