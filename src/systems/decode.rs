//! Latents to pictures, one at a time.

use std::fmt;

use super::kit::{Kit, Phase};
use super::part::Part;
use super::tiles::{Tiles, told};
use crate::error::{Error, Message, Result};
use crate::models::autoencoder::Autoencoder;
use crate::models::config::NetworkConfig;
use crate::network::Executor;
use crate::tensor::Tensor;

/// What a VAE's decoder is called.
const NAME: &str = "VAE's decoder";

/// Sides of the smallest tiles, in latents: in smaller ones, little is left between the seams.
const LEAST: usize = 8;

/// The part that decodes latents of this size, one picture at a time, by the weights of the folder `component`.
///
/// # Errors
/// If the autoencoder has no decoder for them.
pub fn part(vae: &Autoencoder, component: &str, [height, width]: [usize; 2], pictures: usize) -> Result<Part> {
    let (graph, wanted) = (vae.decoder(component, 1, height, width)?, vae.wanted(component)?);
    Ok(Part { what: NAME.into(), component: component.into(), graph, wanted, added: None, times: pictures })
}

/// How latents are decoded: the first of these that the device can hold.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Whole,
    /// In overlapping tiles of this many latents to a side.
    Tiles(usize),
    OnCpu,
}

impl How {
    /// The next, for latents of this size in tiles of at most `most`.
    fn next(self, size: [usize; 2], most: usize) -> Self {
        let whole = size[0].max(size[1]);
        let tile = match self {
            Self::Whole => std::iter::successors(Some(most), |tile| Some(tile / 2)).find(|tile| *tile < whole),
            Self::Tiles(tile) => Some(tile / 2),
            Self::OnCpu => None,
        };
        // A quarter of a tile overlaps.
        tile.map(|tile| tile / 4 * 4).filter(|tile| *tile >= LEAST).map_or(Self::OnCpu, Self::Tiles)
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("as a whole"),
            Self::Tiles(tile) => f.write_str(&told(*tile)),
            Self::OnCpu => f.write_str("on the CPU"),
        }
    }
}

/// Takes a decoded picture.
type Add<'a> = dyn FnMut(&mut Kit<'_>, Tensor) -> Result<()> + Send + 'a;

/// The decoder of a system's latents.
pub struct Decoder<'a> {
    /// Its network.
    pub vae: &'a Autoencoder,
    /// The folder of its weights.
    pub component: &'static str,
    /// Whether it overflows f16.
    pub in_f32: bool,
    how: How,
    /// Why it is not decoded as a whole, until that is reported.
    why: Option<Message>,
}

impl<'a> Decoder<'a> {
    /// One that has not decoded anything.
    pub fn new(vae: &'a Autoencoder, component: &'static str, in_f32: bool) -> Self {
        Self { vae, component, in_f32, how: How::Whole, why: None }
    }

    /// Latents `[pictures, height, width, channels]` to the kit's next pictures. What all the steps made is not lost
    /// to a device that cannot hold the decoder: it decodes tile by tile or, if it cannot hold one, the CPU does.
    ///
    /// # Errors
    /// If the decoder cannot be loaded or run on the CPU either, or a picture cannot be kept.
    pub async fn decode(&mut self, kit: &mut Kit<'_>, latents: &Tensor) -> Result<()> {
        self.decode_to(kit, latents, &mut |kit, pixels| kit.add_picture(&pixels)).await
    }

    /// The pictures of such latents, each `[1, H, W, 3]` from -1 to 1, which go nowhere yet.
    ///
    /// # Errors
    /// If the decoder cannot be loaded or run on the CPU either.
    pub(super) async fn pixels(&mut self, kit: &mut Kit<'_>, latents: &Tensor) -> Result<Vec<Tensor>> {
        let mut pictures = Vec::new();
        self.decode_to(kit, latents, &mut |kit, pixels| {
            kit.mark(Phase::Decode, "decoding");
            pictures.push(pixels);
            Ok(())
        })
        .await?;
        Ok(pictures)
    }

    async fn decode_to(&mut self, kit: &mut Kit<'_>, latents: &Tensor, add: &mut Add<'_>) -> Result<()> {
        let [_, height, width, _] = latents.shape.image()?;
        let (mut made, most) = (0, self.vae.tile());
        loop {
            match (self.decode_so(kit, latents, &mut made, add).await, kit.executor) {
                (Err(Error::TooLarge(why)), Executor::Gpu(..)) if self.how != How::OnCpu => {
                    self.how = self.how.next([height, width], most);
                    self.why.get_or_insert(why);
                }
                (decoded, _) => return decoded,
            }
        }
    }

    /// The pictures that are not made yet, one at a time: the decoder's activations are the largest of all. A network
    /// is loaded for each size of tiles; a whole picture is one tile.
    async fn decode_so(
        &mut self,
        kit: &mut Kit<'_>,
        latents: &Tensor,
        made: &mut usize,
        add: &mut Add<'_>,
    ) -> Result<()> {
        let [batch, height, width, channels] = latents.shape.image()?;
        let executor = match self.how {
            How::OnCpu => Executor::Cpu,
            _ if self.in_f32 => kit.executor.in_f32(),
            _ => kit.executor.clone(),
        };
        let side = if let How::Tiles(side) = self.how { side } else { height.max(width) };
        let one = latents.data.len() / batch;
        let tiles = Tiles::new([height, width], side);
        let mut pictures: Vec<_> =
            latents.data.chunks_exact(one).skip(*made).map(|latents| (latents, tiles.clone())).collect();
        let sizes = tiles.sizes();
        for (index, size) in sizes.iter().enumerate() {
            let mut network = kit.load(&executor, part(self.vae, self.component, *size, batch)?).await?;
            if let Some(why) = self.why.take() {
                kit.warn(why.on(format!("the {NAME} runs {}", self.how)));
            }
            for (latents, tiles) in &mut pictures {
                kit.decodes();
                for at in tiles.of_size(*size) {
                    let z = tiles.cut(latents, channels, at);
                    let z = Tensor::new(z.shape, self.vae.unscale(&z.data));
                    let place = format!("picture {}", kit.made() + 1);
                    let mut outputs = kit.pass(&mut network, &[("z", &z)], &place).await?;
                    let sample = outputs.remove("sample");
                    tiles.put(at, sample.ok_or_else(|| Error::shape(format!("the {NAME} has no output sample")))?);
                }
                if index + 1 == sizes.len() {
                    add(kit, tiles.join()?)?;
                    *made += 1;
                }
            }
            kit.release(network);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_does_not_fit_is_tried_in_ever_smaller_tiles_and_then_on_the_cpu() {
        let ways = |size, most| {
            let next = |how: &How| (*how != How::OnCpu).then(|| how.next(size, most));
            std::iter::successors(Some(How::Whole), next).skip(1).collect::<Vec<_>>()
        };
        assert_eq!(ways([96, 64], 64), [How::Tiles(64), How::Tiles(32), How::Tiles(16), How::Tiles(8), How::OnCpu]);
        assert_eq!(ways([40, 64], 64), [How::Tiles(32), How::Tiles(16), How::Tiles(8), How::OnCpu]);
        assert_eq!(ways([30, 30], 50), [How::Tiles(24), How::Tiles(12), How::OnCpu]);
        assert_eq!(ways([8, 8], 64), [How::OnCpu]);
        assert_eq!(ways([8, 8], 0), [How::OnCpu]);
    }
}
