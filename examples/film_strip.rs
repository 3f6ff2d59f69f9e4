//! How a picture forms, by the networks and a sampler alone: `film_strip FILE.png [PROMPT...]`. A row for each prompt;
//! from left to right what the network takes for the picture after more and more of 25 steps, by the built-in model.

use std::path::Path;

use ornstein::Device;
use ornstein::error::{Error, Message, Result};
use ornstein::forward::{Tensors, forward};
use ornstein::image::{encode_png, to_rgb8};
use ornstein::rng::Generator;
use ornstein::samplers::{Config, sampler};
use ornstein::tensor::Tensor;
use ornstein::tokenizer::Tokenizer;
use ornstein::weights::{Changes, Model, write_atomically};

const STEPS: usize = 25;
const GUIDANCE: f32 = 4.0;
/// `scaling_factor` of the model's VAE.
const SCALING: f32 = 0.303251;
/// After how many steps a frame is shown: where much happens, most.
const FRAMES: [usize; 9] = [1, 2, 3, 5, 7, 10, 14, 19, 25];
/// Pixels of a frame here for one of the model's, and between frames.
const SCALE: usize = 2;
const GAP: usize = 6;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = arguments.first().map_or("film.png", String::as_str);
    let own = ["a green square to the left of a yellow star on a black background".to_string()];
    let prompts = if arguments.len() > 1 { &arguments[1..] } else { &own[..] };
    let model = Model::builtin();
    let rows = prompts.iter().map(|prompt| film(&model, prompt)).collect::<Result<Vec<_>>>()?;
    let (width, height, rgb) = strip(&rows);
    write_atomically(Path::new(file), &encode_png(width, height, &rgb, "")?)
}

/// The frames of one prompt, `[1, H, W, 3]` each.
fn film(model: &Model, prompt: &str) -> Result<Vec<Tensor>> {
    let tokenizer = Tokenizer::from_files("tokenizer", |name| model.bytes(&format!("tokenizer/{name}")))?;
    let config = Config::from_json(&model.text("scheduler/scheduler_config.json")?, "scheduler_config.json")?;
    let mut sampler = sampler("euler", &config, STEPS)?;
    let contexts = [prompt, ""].map(|text| {
        let ids = tokenizer.encode_padded(text, 77)?.0.into_iter().map(|id| id as f32).collect();
        run(model, "text-encoder", vec![("input_ids", Tensor::new([1, 77], ids))], "last_hidden_state")
    });
    let [context, without] = contexts;
    let (context, without) = (context?, without?);
    let mut generator = Generator::new(7);
    let shape = [1, 4, 16, 16];
    let scale = sampler.init_noise_sigma();
    let mut latents: Vec<f32> = generator.normal(shape.iter().product()).iter().map(|x| x * scale).collect();
    let sigmas = sampler.sigmas().unwrap_or_default().to_vec();
    let mut frames = Vec::new();
    for (index, timestep) in sampler.timesteps().to_vec().into_iter().enumerate() {
        let sample = latents.iter().map(|x| x * sampler.input_scale(index)).collect();
        let predicted = |context: &Tensor| {
            let sample = Tensor::new(shape, Vec::clone(&sample));
            let timestep = Tensor::new([1], vec![timestep]);
            let inputs = vec![("sample", sample), ("timestep", timestep), ("encoder_hidden_states", context.clone())];
            run(model, "unet", inputs, "sample")
        };
        let (with, without) = (predicted(&context)?, predicted(&without)?);
        let guided: Vec<f32> = with.data.iter().zip(&without.data).map(|(c, u)| u + GUIDANCE * (c - u)).collect();
        if FRAMES.contains(&(index + 1)) {
            // What the model predicts is a velocity (Salimans and Ho 2022), and the picture in it is this.
            let variance = sigmas[index].powi(2) + 1.0;
            let clean = |(x, v): (&f32, &f32)| (x / variance - v * sigmas[index] / variance.sqrt()) / SCALING;
            let clean = latents.iter().zip(&guided).map(clean).collect();
            let pixels = run(model, "vae-decoder", vec![("z", Tensor::new(shape, clean))], "sample")?;
            frames.push(pixels.to_channels_last()?);
        }
        latents = sampler.step(index, &guided, &latents, &mut |n| generator.normal(n));
    }
    Ok(frames)
}

/// An output of a pass of one of the model's networks.
fn run(model: &Model, pass: &str, inputs: Vec<(&str, Tensor)>, output: &str) -> Result<Tensor> {
    let inputs: Tensors = inputs.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
    let (changes, warn) = (Changes::default(), &mut |text: &Message| eprintln!("{text}"));
    let mut outputs = pollster::block_on(forward(model, &changes, pass, inputs, &Device::Cpu, warn))?;
    outputs.remove(output).ok_or_else(|| Error::usage(format!("{pass} has no output {output}")))
}

/// Frames in rows on white, each of their pixels a square: width, height and bytes.
fn strip(rows: &[Vec<Tensor>]) -> (usize, usize, Vec<u8>) {
    let (tall, wide) = (rows[0][0].shape.dims()[1], rows[0][0].shape.dims()[2]);
    let (across, down) = (wide * SCALE + GAP, tall * SCALE + GAP);
    let (width, height) = (across * FRAMES.len() + GAP, down * rows.len() + GAP);
    let mut rgb = vec![255; 3 * width * height];
    for (row, frames) in rows.iter().enumerate() {
        for (column, frame) in frames.iter().enumerate() {
            let bytes = to_rgb8(frame);
            for (y, x) in (0..tall * SCALE).flat_map(|y| (0..wide * SCALE).map(move |x| (y, x))) {
                let to = (row * down + GAP + y) * width + column * across + GAP + x;
                let from = y / SCALE * wide + x / SCALE;
                rgb[3 * to..][..3].copy_from_slice(&bytes[3 * from..][..3]);
            }
        }
    }
    (width, height, rgb)
}
