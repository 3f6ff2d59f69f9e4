//! A picture to latents.

use super::kit::{Kit, Phase};
use super::part::Part;
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::models::autoencoder::Autoencoder;
use crate::models::config::{ENCODER, NetworkConfig};
use crate::network::Executor;
use crate::tensor::Tensor;

/// What a VAE's encoder is called.
const NAME: &str = "VAE's encoder";

/// The part that encodes one picture of this height and width.
///
/// # Errors
/// If the autoencoder has no encoder for it.
pub fn part(vae: &Autoencoder, [height, width]: [usize; 2]) -> Result<Part> {
    let (graph, wanted) = (vae.encoder(1, height, width)?, vae.wanted("vae")?);
    Ok(Part { what: NAME.into(), component: "vae".into(), graph, wanted, added: None, times: 1 })
}

/// The latents of one picture `[1, h, w, C]`, which are a distribution unless the autoencoder is a tiny one.
pub struct Encoded {
    /// The most likely.
    pub mean: Tensor,
}

impl Encoded {
    /// A picture, resized to this height and width, as an autoencoder sees it, where a device cannot hold that on the
    /// CPU.
    ///
    /// # Errors
    /// If the encoder cannot be loaded or run on the CPU either.
    pub async fn of(
        kit: &mut Kit<'_>,
        vae: &Autoencoder,
        in_f32: bool,
        picture: &Picture,
        [height, width]: [usize; 2],
    ) -> Result<Self> {
        let mut sample = picture.to_tensor(width, height);
        sample.data.iter_mut().for_each(|v| *v = 2.0 * *v - 1.0);
        let inputs = [("sample", &sample)];
        let executor = if in_f32 { kit.executor.in_f32() } else { kit.executor.clone() };
        let part = part(vae, [height, width])?;
        let outputs = match kit.once_on(&executor, part.clone(), &inputs, "the picture").await {
            Err(Error::TooLarge(why)) if !matches!(executor, Executor::Cpu) => {
                kit.warn(why.on(format!("the {NAME} runs on the CPU")));
                kit.once_on(&Executor::Cpu, part, &inputs, "the picture").await?
            }
            outputs => outputs?,
        };
        kit.mark(Phase::Text, "encoding the picture");
        let mut outputs = vae.finish(ENCODER, &Default::default(), outputs.into_iter().collect())?;
        let mean = outputs.remove("mean").or_else(|| outputs.remove("latents"));
        let mean = mean.ok_or_else(|| Error::shape(format!("the {NAME} gives no latents")))?;
        Ok(Self { mean })
    }
}
