//! Inputs for a model's networks where it does not matter which: random, small, in a batch of two.

use crate::error::Result;
use crate::forward::{Component, Tensors};
use crate::models::autoencoder::Autoencoder;
use crate::models::unet::TIME_IDS;
use crate::models::{clip, controlnet, unet};
use crate::rng::Generator;
use crate::tensor::{Shape, Tensor};
use crate::weights::Model;

pub const BATCH: usize = 2;
/// Height and width of latents, unless the model's own are small.
pub const SIDE: usize = 16;
/// The model's own size is small up to this.
const SMALL: usize = 32;
/// Tokens of a text, as every Stable Diffusion has them.
const TOKENS: usize = 77;

/// The networks that the model has.
pub fn components(model: &Model) -> Vec<Component> {
    use Component::{ControlNet, TextEncoder, TextEncoder2, Unet, VaeDecoder, VaeEncoder};
    let all = [TextEncoder, TextEncoder2, Unet, VaeDecoder, VaeEncoder, ControlNet];
    all.into_iter().filter(|component| model.has(&format!("{}/config.json", component.folder()))).collect()
}

/// What `ornstein forward` would read from a file for this component.
///
/// # Errors
/// If a configuration cannot be read.
pub fn random(model: &Model, component: Component, seed: u64) -> Result<Tensors> {
    let path = format!("{}/config.json", component.folder());
    let (text, place) = (model.text(&path)?, model.path(&path).display().to_string());
    let mut generator = Generator::new(seed);
    let mut normal = |shape: Shape| Tensor { data: generator.normal(shape.len()), shape };
    let inputs: Vec<(&str, Tensor)> = match component {
        Component::TextEncoder | Component::TextEncoder2 => {
            vec![("input_ids", ids(&clip::Config::from_json(&text, &place)?, &mut normal))]
        }
        Component::Unet => of_unet(&unet::Config::from_json(&text, &place)?, &mut normal),
        Component::ControlNet => {
            let config = controlnet::Config::from_json(&text, &place)?;
            let mut inputs = of_unet(&config.unet, &mut normal);
            let [height, width] = latent_size(&config.unet).map(|n| n * config.factor());
            let mut image = normal([BATCH, controlnet::IMAGE_CHANNELS, height, width].into());
            image.data.iter_mut().for_each(|v| *v = (*v / 4.0 + 0.5).clamp(0.0, 1.0));
            inputs.push(("controlnet_cond", image));
            inputs
        }
        Component::VaeDecoder | Component::VaeEncoder => {
            let config = Autoencoder::from_json(&text, &place)?;
            let [height, width] = unet_latent_size(model)?;
            if component == Component::VaeDecoder {
                vec![("z", normal([BATCH, config.latent_channels(), height, width].into()))]
            } else {
                let [height, width] = [height, width].map(|n| n * config.factor());
                let mut sample = normal([BATCH, config.in_channels(), height, width].into());
                sample.data.iter_mut().for_each(|v| *v = (*v / 2.0).clamp(-1.0, 1.0));
                vec![("sample", sample)]
            }
        }
    };
    Ok(inputs.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect())
}

/// What a UNet and a ControlNet take.
fn of_unet(config: &unet::Config, normal: &mut dyn FnMut(Shape) -> Tensor) -> Vec<(&'static str, Tensor)> {
    let [height, width] = latent_size(config);
    let mut inputs = vec![
        ("sample", normal([BATCH, config.in_channels, height, width].into())),
        ("timestep", Tensor::new([BATCH], vec![801.0, 41.0])),
        ("encoder_hidden_states", normal([BATCH, TOKENS, config.cross_attention_dim].into())),
    ];
    if let Some(added) = &config.text_time {
        inputs.push(("text_embeds", normal([BATCH, added.text_width].into())));
        let ids = [1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0].repeat(BATCH);
        inputs.push(("time_ids", Tensor::new([BATCH, TIME_IDS], ids)));
    }
    if let Some(embedding) = config.guidance_embedding(8.5) {
        inputs.push(("timestep_cond", Tensor::new([BATCH, embedding.len()], embedding.repeat(BATCH))));
    }
    inputs
}

/// Any words, and the end token at the end.
fn ids(config: &clip::Config, normal: &mut dyn FnMut(Shape) -> Tensor) -> Tensor {
    let tokens = config.max_tokens;
    let mut ids = normal([BATCH, tokens].into());
    for (i, id) in ids.data.iter_mut().enumerate() {
        let is_last = i % tokens == tokens - 1 && (config.eos_token_id as usize) < config.vocab_size;
        *id = if is_last { config.eos_token_id as f32 } else { (id.abs() * 1e4).floor() % config.vocab_size as f32 };
    }
    ids
}

fn latent_size(config: &unet::Config) -> [usize; 2] {
    config.sample_size.filter(|size| size.iter().all(|n| *n <= SMALL)).unwrap_or([SIDE; 2])
}

fn unet_latent_size(model: &Model) -> Result<[usize; 2]> {
    let path = "unet/config.json";
    if !model.has(path) {
        return Ok([SIDE; 2]);
    }
    Ok(latent_size(&unet::Config::from_json(&model.text(path)?, &model.path(path).display().to_string())?))
}
