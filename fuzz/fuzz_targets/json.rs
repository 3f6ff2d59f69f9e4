//! A configuration as each kind of network and sampler reads it, and the graph that it describes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ornstein::graph::Graph;
use ornstein::models::autoencoder::Autoencoder;
use ornstein::models::config::NetworkConfig;
use ornstein::models::clip::{self, State};
use ornstein::models::{controlnet, unet};
use ornstein::samplers;

fuzz_target!(|text: &str| {
    if let Ok(config) = unet::Config::from_json(text, "config") {
        look(config.graph(2, 9, 8, 77));
        assert!(!config.to_string().is_empty());
    }
    if let Ok(config) = controlnet::Config::from_json(text, "config") {
        look(config.graph(1, 8, 8, 77));
    }
    if let Ok(config) = Autoencoder::from_json(text, "config") {
        drop(config.wanted("vae"));
        look(config.decoder(1, 8, 9));
        let side = 8 * config.factor();
        look(config.encoder(1, side, side));
    }
    if let Ok(config) = clip::Config::from_json(text, "config") {
        look(config.graph("text_encoder", 2, config.max_tokens));
        look(config.conditioning("text_encoder", 1, config.max_tokens, 1, State::Raw));
    }
    if let Ok(config) = samplers::Config::from_json(text, "config") {
        drop(config.default_sampler());
        for name in samplers::names() {
            sample(name, &config);
        }
    }
});

/// What is made of a graph before any weights are read.
fn look(graph: ornstein::error::Result<Graph>) {
    let Ok(graph) = graph else { return };
    let wanted = graph.wanted();
    assert!(wanted.iter().all(|(_, shape)| !shape.is_empty()));
    assert!(graph.fused().wanted().len() <= wanted.len());
}

/// A few steps of a sampler on two numbers.
fn sample(name: &str, config: &samplers::Config) {
    let Ok(mut sampler) = samplers::sampler(name, config, 4) else { return };
    let mut latents = vec![sampler.init_noise_sigma(); 2];
    for index in 0..sampler.timesteps().len() {
        sampler.input_scale(index);
        latents = sampler.step(index, &[0.5, -0.5], &latents, &mut |n| vec![0.1; n]);
        assert_eq!(latents.len(), 2);
    }
}
