//! InstructPix2Pix (Brooks et al. 2023): Stable Diffusion 1 whose UNet also sees the latents of a picture.

use serde_json::json;

use super::sd1::SD1;
use super::{Family, files};

pub static PIX2PIX: Family = Family {
    name: "pix2pix",
    title: "InstructPix2Pix",
    recognises: |network| network.dim("conv_in.weight", 1) == Some(8) && (SD1.recognises)(network),
    // The original code samples by Euler's ancestral method.
    files: |prediction| {
        let scheduler = "EulerAncestralDiscreteScheduler";
        files("StableDiffusionInstructPix2PixPipeline", scheduler, json!({}), prediction)
    },
    ..SD1
};
