//! Published models: which networks they are made of, at what size, for timing and checking without their weights.
//!
//! A network's configuration is the one of its published `config.json`, as far as it differs from diffusers' and
//! transformers' defaults. Text encoders and UNets run at a batch of two, as guidance runs them, VAEs at one.

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::config::{DECODER, ENCODER};
use crate::models::ports::Sizes;
use crate::models::table;

const CLIP_L: &str = r#"{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}"#;
const OPEN_CLIP_H: &str = r#"{"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 23, "hidden_act": "gelu"}"#;
const OPEN_CLIP_BIG_G: &str = r#"{"architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280,
    "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "hidden_act": "gelu",
    "projection_dim": 1280}"#;
const SD21_UNET: &str =
    r#"{"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": true}"#;
const SDXL_UNET: &str = r#"{"block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10], "cross_attention_dim": 2048, "use_linear_projection": true,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816}"#;
pub(crate) const VAE: &str = r#"{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;

const VQ: &str = r#"{"_class_name": "VQModel", "block_out_channels": [128, 256, 512], "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"], "num_vq_embeddings": 8192}"#;

/// Published models of one size.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// What the command line calls it.
    pub name: &'static str,
    /// Height and width of the latents, or of the pixels, that they were trained on.
    pub latent: usize,
    /// Folders and configurations of the networks that make a picture.
    pub parts: &'static [(&'static str, &'static str)],
}

/// Stable Diffusion 1.5.
pub static SD15: Published = Published {
    name: "sd15",
    latent: 64,
    parts: &[("text_encoder", CLIP_L), ("unet", r#"{"cross_attention_dim": 768}"#), ("vae", VAE)],
};

/// Stable Diffusion 2.1, at 768 x 768.
static SD21: Published =
    Published { name: "sd21", latent: 96, parts: &[("text_encoder", OPEN_CLIP_H), ("unet", SD21_UNET), ("vae", VAE)] };

/// InstructPix2Pix.
static PIX2PIX: Published = Published {
    name: "pix2pix",
    latent: 64,
    parts: &[("text_encoder", CLIP_L), ("unet", r#"{"cross_attention_dim": 768, "in_channels": 8}"#), ("vae", VAE)],
};

/// The x4 upscaler, of pictures of 128 x 128.
static X4: Published = Published {
    name: "x4",
    latent: 128,
    parts: &[
        ("text_encoder", OPEN_CLIP_H),
        (
            "unet",
            r#"{"block_out_channels": [256, 512, 512, 1024], "cross_attention_dim": 1024, "in_channels": 7,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                                     "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "num_class_embeds": 1000, "only_cross_attention": [true, true, true, false],
                "use_linear_projection": true}"#,
        ),
        (
            "vae",
            r#"{"block_out_channels": [128, 256, 512], "layers_per_block": 2, "scaling_factor": 0.08333,
                "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
                "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#,
        ),
    ],
};

/// SDXL base 1.0.
pub static SDXL: Published = Published {
    name: "sdxl",
    latent: 128,
    parts: &[("text_encoder", CLIP_L), ("text_encoder_2", OPEN_CLIP_BIG_G), ("unet", SDXL_UNET), ("vae", VAE)],
};

/// SDXL's refiner 1.0.
static SDXL_REFINER: Published = Published {
    name: "sdxl-refiner",
    latent: 128,
    parts: &[
        ("text_encoder_2", OPEN_CLIP_BIG_G),
        (
            "unet",
            r#"{"block_out_channels": [384, 768, 1536, 1536], "attention_head_dim": [6, 12, 24, 24],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "transformer_layers_per_block": 4, "cross_attention_dim": 1280, "use_linear_projection": true,
                "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2560}"#,
        ),
        ("vae", VAE),
    ],
};

/// Stable Diffusion 2.1 unCLIP, with OpenCLIP's ViT-H, at 768 x 768.
static SD21_UNCLIP: Published = Published {
    name: "sd21-unclip",
    latent: 96,
    parts: &[
        ("text_encoder", OPEN_CLIP_H),
        (
            "image_encoder",
            r#"{"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "num_hidden_layers": 32,
                "patch_size": 14, "projection_dim": 1024, "hidden_act": "gelu"}"#,
        ),
        (
            "unet",
            r#"{"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": true,
                "class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}"#,
        ),
        ("vae", VAE),
    ],
};

/// The smaller one, with OpenAI's ViT-L.
static SD21_UNCLIP_SMALL: Published = Published {
    name: "sd21-unclip-small",
    latent: 96,
    parts: &[
        ("text_encoder", OPEN_CLIP_H),
        (
            "image_encoder",
            r#"{"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
                "patch_size": 14, "projection_dim": 768}"#,
        ),
        (
            "unet",
            r#"{"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": true,
                "class_embed_type": "projection", "projection_class_embeddings_input_dim": 1536}"#,
        ),
        ("vae", VAE),
    ],
};

/// SSD-1B, SDXL with fewer transformers (Gupta et al. 2024): its UNet alone, the rest is SDXL's. The depths are those
/// whose count of parameters is that of the published file.
static SSD_1B: Published = Published {
    name: "ssd-1b",
    latent: 128,
    parts: &[(
        "unet",
        r#"{"block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, [2, 2], [4, 4]],
            "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1], "cross_attention_dim": 2048,
            "use_linear_projection": true, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}"#,
    )],
};

/// Segmind-Vega, as SSD-1B with fewer still.
static VEGA: Published = Published {
    name: "vega",
    latent: 128,
    parts: &[(
        "unet",
        r#"{"block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, [1, 1], [2, 2]],
            "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1], "cross_attention_dim": 2048,
            "use_linear_projection": true, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}"#,
    )],
};

/// tiny-sd (Kim et al. 2023): Stable Diffusion 1's UNet without its lowest level and middle, one layer a block.
static TINY_SD: Published = Published {
    name: "tiny-sd",
    latent: 64,
    parts: &[(
        "unet",
        r#"{"block_out_channels": [320, 640, 1280], "layers_per_block": 1, "cross_attention_dim": 768,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "mid_block_type": null,
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]}"#,
    )],
};

/// DDPM on CIFAR-10 (Ho et al. 2020), in pixels.
static DDPM_CIFAR10: Published = Published {
    name: "ddpm-cifar10-32",
    latent: 32,
    parts: &[(
        "unet",
        r#"{"_class_name": "UNet2DModel", "block_out_channels": [128, 256, 256, 256], "attention_head_dim": null,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
            "downsample_padding": 0, "flip_sin_to_cos": false, "freq_shift": 1, "norm_eps": 1e-6}"#,
    )],
};

/// DDPM at 256 x 256, in pixels.
static DDPM_CAT: Published = Published {
    name: "ddpm-cat-256",
    latent: 256,
    parts: &[(
        "unet",
        r#"{"_class_name": "UNet2DModel", "block_out_channels": [128, 128, 256, 256, 512, 512],
            "attention_head_dim": null,
            "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D",
                "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"],
            "downsample_padding": 0, "flip_sin_to_cos": false, "freq_shift": 1, "norm_eps": 1e-6}"#,
    )],
};

/// The unconditional latent diffusion model of faces, at 256 x 256.
static LDM_CELEBAHQ: Published = Published {
    name: "ldm-celebahq-256",
    latent: 64,
    parts: &[("unet", r#"{"_class_name": "UNet2DModel", "attention_head_dim": 32}"#), ("vqvae", VQ)],
};

/// The first latent diffusion model with texts, at 256 x 256.
static LDM_TEXT: Published =
    Published { name: "ldm-text2im-large-256", latent: 32, parts: &[("bert", "{}"), ("unet", "{}"), ("vqvae", VAE)] };

/// Latent diffusion that enlarges four times, here from 64 x 64.
static LDM_SUPER_RESOLUTION: Published = Published {
    name: "ldm-super-resolution-4x",
    latent: 64,
    parts: &[
        (
            "unet",
            r#"{"_class_name": "UNet2DModel", "attention_head_dim": 32, "in_channels": 6,
                "block_out_channels": [160, 320, 320, 640],
                "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
                "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"]}"#,
        ),
        ("vqvae", VQ),
    ],
};

/// Every published model whose shapes are timed and checked without its weights.
#[rustfmt::skip]
pub static PUBLISHED: &[&Published] = &[
    &SD15,
    &SD21,
    &SDXL,
    &PIX2PIX,
    &X4,
    &SDXL_REFINER,
    &SD21_UNCLIP,
    &SD21_UNCLIP_SMALL,
    &SSD_1B,
    &VEGA,
    &TINY_SD,
    &DDPM_CIFAR10,
    &DDPM_CAT,
    &LDM_CELEBAHQ,
    &LDM_TEXT,
    &LDM_SUPER_RESOLUTION,
];

/// The published models of that name.
pub fn published(name: &str) -> Option<&'static Published> {
    PUBLISHED.iter().copied().find(|published| published.name == name)
}

impl Published {
    /// The networks that make a picture, fused as they run, for latents of `latent` x `latent` and `batch` rows.
    ///
    /// # Errors
    /// If there is no such size: 0.
    pub fn networks(&self, latent: usize, batch: usize) -> Result<Vec<Graph>> {
        let sizes = Sizes { batch, height: latent, width: latent, tokens: 77 };
        let mut graphs = Vec::new();
        for (folder, config) in self.parts {
            let built = table::open(folder, config, self.name)?;
            let config = built.ok_or_else(|| Error::config(self.name, format!("{folder} is of no class")))?;
            for way in config.ways().iter().filter(|way| **way != ENCODER) {
                graphs.push(config.graph(folder, way, &rows(way, sizes))?.fused());
            }
        }
        Ok(graphs)
    }
}

/// Decoders run at one picture, whose activations are the largest of all.
pub(super) fn rows(way: &str, sizes: Sizes) -> Sizes {
    if way == DECODER { Sizes { batch: 1, ..sizes } } else { sizes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flops(family: &Published, latent: usize, network: &str) -> f64 {
        let graphs = family.networks(latent, 1).unwrap();
        graphs.iter().find(|graph| graph.network == network).unwrap().flops() as f64
    }

    /// Counts published with the models' profiles: 401.6, 402.1 and 3380.6 GMAC, a decoder's 1257.3.
    #[test]
    fn the_networks_do_the_arithmetic_of_the_published_models() {
        for (family, latent, network, gmac) in [
            (&SD15, 64, "unet", 401.6),
            (&SD21, 64, "unet", 402.1),
            (&SDXL, 128, "unet", 3380.6),
            (&SD15, 64, "vae", 1257.3),
            (&SD15, 64, "text_encoder", 6.65),
        ] {
            let found = flops(family, latent, network) / 2e9;
            assert!((found / gmac - 1.0).abs() < 0.02, "{} {network}: {found} GMAC", family.name);
        }
    }

    #[test]
    fn the_tensors_of_every_published_network_can_be_listed() {
        for published in PUBLISHED {
            for (folder, config) in published.parts {
                let network = table::open(folder, config, published.name).unwrap().unwrap();
                assert!(!network.wanted(folder).unwrap().is_empty(), "{} {folder}", published.name);
            }
        }
    }

    #[test]
    fn the_parameters_are_those_of_the_published_models() {
        for (family, network, millions) in [
            (&SD15, "unet", 859.52),
            (&SD21, "unet", 865.91),
            (&SDXL, "unet", 2567.46),
            (&SDXL, "text_encoder_2", 694.66),
            (&SD15, "vae", 49.49),
            // Without `to_logits`, which no picture needs.
            (&LDM_TEXT, "bert", 542.90),
            (&PIX2PIX, "unet", 859.53),
            (&X4, "unet", 473.40),
            (&X4, "vae", 32.97),
            (&SDXL_REFINER, "unet", 2259.53),
            (&SD21_UNCLIP, "unet", 870.17),
            (&SD21_UNCLIP, "image_encoder", 632.08),
            (&SD21_UNCLIP_SMALL, "image_encoder", 303.97),
            (&SSD_1B, "unet", 1331.33),
            (&VEGA, "unet", 745.23),
            (&TINY_SD, "unet", 323.38),
            (&DDPM_CIFAR10, "unet", 35.75),
            (&DDPM_CAT, "unet", 113.67),
        ] {
            let graphs = family.networks(32, 1).unwrap();
            let graph = graphs.iter().find(|graph| graph.network == network).unwrap();
            let found = graph.wanted().iter().map(|(_, shape)| shape.len()).sum::<usize>() as f64 / 1e6;
            assert!((found - millions).abs() < 0.01, "{} {network}: {found} M", family.name);
        }
    }
}
