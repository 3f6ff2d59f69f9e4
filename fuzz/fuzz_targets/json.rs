//! A configuration as each kind of network and sampler reads it, and the graph that it describes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ornstein::graph::Graph;
use ornstein::models::ports::Sizes;
use ornstein::models::table;
use ornstein::samplers;

fuzz_target!(|text: &str| {
    if let Ok(value @ serde_json::Value::Object(_)) = serde_json::from_str(text) {
        for class in table::classes() {
            // As diffusers and as transformers name it.
            network(value.clone(), "_class_name", class.into());
            network(value.clone(), "architectures", vec![class].into());
        }
    }
    if let Ok(config) = samplers::Config::from_json(text, "config") {
        drop(config.default_sampler());
        for name in samplers::names() {
            sample(name, &config);
        }
    }
});

/// A configuration as that of this class, and all its passes.
fn network(mut value: serde_json::Value, key: &str, class: serde_json::Value) {
    value[key] = class;
    let Ok(Some(config)) = table::open("network", &value.to_string(), "config") else { return };
    assert!(!config.about().is_empty());
    drop(config.wanted("network"));
    let mut sizes = Sizes { batch: 2, height: 9, width: 8, tokens: 77 };
    config.own_sizes(&mut sizes);
    for way in config.ways() {
        look(config.graph("network", way, &config.pass_sizes(way, sizes)));
    }
}

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
