//! Inpainting models (Rombach et al. 2022): UNets of each family that also see a mask and the latents that it leaves.

use serde_json::json;

use super::sd1::SD1;
use super::sd2::SD2;
use super::sdxl::SDXL;
use super::{Family, Seen, files};

/// The latents' channels, twice, and the mask's.
fn is_shown_a_mask(unet: &Seen) -> bool {
    unet.dim("conv_in.weight", 1) == Some(9)
}

pub static SD1_INPAINT: Family = Family {
    name: "sd1-inpaint",
    title: "Stable Diffusion 1 for inpainting",
    recognises: |unet| is_shown_a_mask(unet) && (SD1.recognises)(unet),
    files: |prediction| files("StableDiffusionInpaintPipeline", "PNDMScheduler", json!({}), prediction),
    ..SD1
};

pub static SD2_INPAINT: Family = Family {
    name: "sd2-inpaint",
    title: "Stable Diffusion 2 for inpainting",
    recognises: |unet| is_shown_a_mask(unet) && (SD2.recognises)(unet),
    files: |prediction| files("StableDiffusionInpaintPipeline", "DDIMScheduler", json!({}), prediction),
    ..SD2
};

pub static SDXL_INPAINT: Family = Family {
    name: "sdxl-inpaint",
    title: "Stable Diffusion XL for inpainting",
    recognises: |unet| is_shown_a_mask(unet) && (SDXL.recognises)(unet),
    files: |prediction| super::sdxl::all_files("StableDiffusionXLInpaintPipeline", prediction),
    ..SDXL
};
