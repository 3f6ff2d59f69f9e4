//! Shapes that the ops' largest cases share.
//!
//! SD 1.5 at 512 x 512 has latents of 64 x 64 and a U-Net of 320 to 1280 channels, SDXL at 1024 x 1024 latents of 128
//! x 128; the U-Nets run on batches of 2. Both VAEs have 128 to 512 channels.

use crate::caps::Caps;

/// Two latents of SDXL, as its U-Net begins with them.
pub(crate) const UNET: [usize; 4] = [2, 128, 128, 320];

/// A picture of SDXL inside the VAE.
pub(crate) const VAE: [usize; 4] = [1, 1024, 1024, 128];

/// A count of rows of `columns` elements that is just beyond what the device binds, even in f16.
pub(crate) fn beyond(caps: &Caps, columns: usize) -> usize {
    let elements = caps.max_binding.min(caps.max_buffer) / 2;
    elements as usize / columns + 4
}
