//! A second run that starts from what a first one drew, enlarged: sizes that a network was not trained on keep the
//! first run's composition (the web UI's "Hires. fix"; with diffusers, a text-to-image pipeline's latents enlarged and
//! given to its image-to-image pipeline). Its noise is that of the same seeds, drawn anew at its size.

use super::decode::Decoder;
use super::encode::Encoder;
use super::kit::Kit;
use super::request::{Hires, HiresMode, Request};
use super::settings::{Settings, check_size};
use crate::error::{Error, Field, Remedy, Result};
use crate::image::{Picture, to_rgb8};
use crate::rng::Generator;
use crate::samplers::Portion;
use crate::tensor::Tensor;

/// How many times longer sides become at most.
const MOST: f64 = 8.0;

/// The second run's settings, if there is one: sides are multiples of `factor`.
///
/// # Errors
/// If it makes no sense, or the first run starts from a picture or ends with a refiner.
pub(super) fn settings(request: &Request, first: &Settings, factor: usize) -> Result<Option<Settings>> {
    let Some(Hires { scale, strength, .. }) = request.hires else { return Ok(None) };
    let error = |what: String| Error::usage(what).of(Field::Hires);
    if !(scale > 1.0 && scale <= MOST) {
        return Err(error(format!("{scale} does not lie above 1 and up to {MOST}")));
    }
    if !(0.0..=1.0).contains(&strength) {
        return Err(Error::usage(format!("{strength} does not lie from 0 to 1")).of(Field::HiresStrength));
    }
    if (first.steps as f64 * strength) as usize == 0 {
        let error = Error::usage(format!("{strength} leaves none of {} steps", first.steps)).of(Field::HiresStrength);
        return Err(error.remedies([Remedy::More(Field::HiresStrength), Remedy::More(Field::Steps)]));
    }
    let other = match first.portion {
        Portion::Whole => None,
        Portion::Last(_) => Some(Field::InitImage),
        Portion::Before(_) | Portion::From(_) => Some(Field::Refiner),
    };
    if let Some(other) = other {
        let what = "goes on with what was drawn from a text alone".to_string();
        return Err(error(what).remedies([Remedy::Without(other)]));
    }
    let longer = |side: usize| (side as f64 * scale) as usize / factor * factor;
    let [width, height] = [first.width, first.height].map(longer);
    if [width, height] == [first.width, first.height] {
        let what = format!("{scale} leaves {width}x{height} as it is: sides are multiples of {factor}");
        return Err(error(what).remedies([Remedy::More(Field::Hires)]));
    }
    check_size(width, height, request.batch)?;
    Ok(Some(Settings { width, height, portion: Portion::Last(strength), ..first.clone() }))
}

/// Latents `[pictures, h, w, C]` of pictures that are enlarged to this height and width.
///
/// # Errors
/// If the pictures cannot be decoded, or not encoded again.
pub(super) async fn enlarged(
    kit: &mut Kit<'_>,
    (decoder, encoder): (&mut Decoder<'_>, Encoder<'_>),
    latents: &Tensor,
    mode: HiresMode,
    [height, width]: [usize; 2],
    noise: &mut [Generator],
) -> Result<Tensor> {
    if mode == HiresMode::Latent {
        let factor = encoder.vae.factor();
        return bilinear(latents, [height / factor, width / factor]);
    }
    let mut data = Vec::new();
    let mut shape = latents.shape.clone();
    let pictures = decoder.pixels(kit, latents).await?;
    for (pixels, noise) in pictures.iter().zip(noise) {
        let [_, own_height, own_width, _] = pixels.shape.image()?;
        let picture = Picture { width: own_width, height: own_height, rgb: to_rgb8(pixels), parameters: None };
        let encoded = encoder.encode(kit, &picture.at_size([width, height])).await?;
        let drawn = encoded.drawn(Some(encoder.vae), std::slice::from_mut(noise));
        shape = drawn.shape;
        data.extend(drawn.data);
    }
    Ok(Tensor::new(shape.with_batch(pictures.len()), data))
}

/// Between the centres of pixels, `torch.nn.functional.interpolate(.., mode="bilinear", align_corners=False)`.
fn bilinear(from: &Tensor, [height, width]: [usize; 2]) -> Result<Tensor> {
    let [batch, own_height, own_width, channels] = from.shape.image()?;
    let [rows, columns] = [(own_height, height), (own_width, width)].map(|(own, to)| {
        let at = |index: usize| {
            let place = ((index as f32 + 0.5) * (own as f32 / to as f32) - 0.5).max(0.0);
            let first = (place as usize).min(own - 1);
            (first, (first + 1).min(own - 1), place - first as f32)
        };
        (0..to).map(at).collect::<Vec<_>>()
    });
    let mut data = Vec::with_capacity(batch * height * width * channels);
    for image in from.data.chunks_exact(own_height * own_width * channels) {
        for (top, bottom, down) in &rows {
            for (left, right, across) in &columns {
                let pixel = |y: usize, x: usize| &image[(y * own_width + x) * channels..][..channels];
                let corners = [(*top, *left), (*top, *right), (*bottom, *left), (*bottom, *right)];
                let [a, b, c, d] = corners.map(|(y, x)| pixel(y, x));
                data.extend((0..channels).map(|i| {
                    let [above, below] = [(a, b), (c, d)].map(|(l, r)| l[i] * (1.0 - across) + r[i] * across);
                    above * (1.0 - down) + below * down
                }));
            }
        }
    }
    Ok(Tensor::new([batch, height, width, channels], data))
}
