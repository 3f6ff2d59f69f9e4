//! What happens between two evaluations of the UNet: its inputs, guidance, and each picture's own sampler step.

use std::ops::Range;

use super::Request;
use crate::error::{Error, Result};
use crate::rng::Generator;
use crate::samplers::Sampler;
use crate::tensor::{Shape, Tensor};

/// What belongs to one picture of a batch alone, so that the picture does not depend on its batch: the sampler, which
/// remembers earlier steps, and the generator of its noise.
pub(super) struct Picture {
    pub sampler: Box<dyn Sampler>,
    pub noise: Generator,
}

/// The pictures of a batch that are still to be made.
#[derive(Debug)]
pub(super) struct Rest {
    batch: usize,
    done: usize,
    /// Most pictures of a part.
    pub at_once: usize,
}

impl Rest {
    /// All at once, for now.
    pub fn new(batch: usize) -> Self {
        Self { batch, done: 0, at_once: batch }
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

    /// Parts of half the pictures, if those of the next one can be halved.
    pub fn halve(&mut self) -> bool {
        let count = self.at_once.min(self.batch - self.done);
        self.at_once = count.div_ceil(2);
        count > 1
    }
}

/// The latents that sampling starts from: seeded or given, times the first sigma. Of these pictures of the whole batch, whose
/// latents have this shape.
pub(super) fn start_latents(
    request: &Request,
    shape: Shape,
    range: Range<usize>,
    pictures: &mut [Picture],
) -> Result<Tensor> {
    let each = shape.len() / shape.batch();
    let part = shape.with_batch(range.len());
    let mut latents = match &request.init_latents {
        Some(given) if given.shape != shape => {
            return Err(Error::usage(format!(
                "--init-latents holds {}, but this picture needs {shape}: change --width, --height or --batch",
                given.shape
            )));
        }
        Some(given) => Tensor::new(part, given.data[range.start * each..range.end * each].to_vec()),
        None => Tensor::new(part, pictures.iter_mut().flat_map(|picture| picture.noise.normal(each)).collect()),
    };
    let sigma = pictures[0].sampler.init_noise_sigma();
    latents.data.iter_mut().for_each(|v| *v *= sigma);
    Ok(latents)
}

/// One step of every picture's own sampler.
pub(super) fn step(pictures: &mut [Picture], index: usize, output: &[f32], latents: &mut [f32]) {
    let each = latents.len() / pictures.len();
    let parts = output.chunks_exact(each).zip(latents.chunks_exact_mut(each));
    for (Picture { sampler, noise }, (output, latents)) in pictures.iter_mut().zip(parts) {
        let next = sampler.step(index, output, latents, &mut |n| noise.normal(n));
        latents.copy_from_slice(&next);
    }
}

/// The UNet's `sample`: the latents times `scale`, channels last, once for each of `times` texts.
pub(super) fn scaled(latents: &Tensor, scale: f32, times: usize) -> Result<Tensor> {
    let mut sample = latents.to_channels_last()?;
    sample.data.iter_mut().for_each(|v| *v *= scale);
    let shape = sample.shape.with_batch(sample.shape.batch() * times);
    Ok(Tensor::new(shape, sample.data.repeat(times)))
}

/// Classifier-free guidance (Ho and Salimans 2022): unconditional + guidance * (conditional - unconditional).
pub(super) fn guide(both: &[f32], guidance: f32) -> Vec<f32> {
    let (unconditional, conditional) = both.split_at(both.len() / 2);
    unconditional.iter().zip(conditional).map(|(u, c)| u + guidance * (c - u)).collect()
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
    fn given_latents_are_those_of_the_parts_own_pictures() {
        let given = Tensor::new([3, 1, 1, 2], (0..6).map(|v| v as f32).collect());
        let request = Request { init_latents: Some(given.clone()), ..Request::default() };
        let config = crate::samplers::Config::from_json("{}", "here").unwrap();
        let sampler = crate::samplers::sampler("ddim", &config, 5).unwrap();
        let mut pictures = [Picture { sampler, noise: crate::rng::NoiseSource::default().seeded(1) }];
        let part = start_latents(&request, given.shape.clone(), 1..2, &mut pictures).unwrap();
        assert_eq!((part.shape.dims(), part.data), (&[1, 1, 1, 2][..], vec![2.0, 3.0]));
    }

    #[test]
    fn guidance_one_is_the_conditional_output() {
        assert_eq!(guide(&[1.0, 2.0, 5.0, 6.0], 1.0), [5.0, 6.0]);
        assert_eq!(guide(&[1.0, 2.0, 5.0, 6.0], 2.0), [9.0, 10.0]);
    }
}
