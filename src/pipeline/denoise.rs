//! What happens between two evaluations of the UNet: its inputs, guidance, and each picture's own sampler step.

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

/// The latents that sampling starts from: seeded or given, times the first sigma.
pub(super) fn start_latents(request: &Request, shape: Shape, pictures: &mut [Picture]) -> Result<Tensor> {
    let each = shape.len() / pictures.len();
    let mut latents = match &request.init_latents {
        Some(given) if given.shape != shape => {
            return Err(Error::usage(format!(
                "--init-latents holds {}, but this picture needs {shape}: change --width, --height or --batch",
                given.shape
            )));
        }
        Some(given) => given.clone(),
        None => Tensor::new(shape, pictures.iter_mut().flat_map(|picture| picture.noise.normal(each)).collect()),
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
    fn guidance_one_is_the_conditional_output() {
        assert_eq!(guide(&[1.0, 2.0, 5.0, 6.0], 1.0), [5.0, 6.0]);
        assert_eq!(guide(&[1.0, 2.0, 5.0, 6.0], 2.0), [9.0, 10.0]);
    }
}
