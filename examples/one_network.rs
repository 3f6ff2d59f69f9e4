//! One network alone, node by node on the CPU: the built-in model's text encoder, and what its nodes take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ornstein::Model;
use ornstein::components::{Component, Components};
use ornstein::error::Result;
use ornstein::graph::interpret::Interpreter;
use ornstein::models::ports::Sizes;
use ornstein::rng::Generator;

fn main() -> Result<()> {
    let model = Model::builtin();
    let components = Components::of(&model)?;
    let (Component { folder, config }, way) = components.pass(&model, "text-encoder")?;
    println!("{folder}: {}", config.about());

    // The network's own sizes, for one prompt; the ports say what to give it.
    let sizes = components.own_sizes(Sizes { batch: 1, height: 8, width: 8, tokens: 77 });
    let mut generator = Generator::new(1);
    let ports = config.ports(way);
    let mut inputs = ports.iter().map(|port| (port.name.to_string(), port.random(&sizes, &mut generator))).collect();
    config.prepare(way, &mut inputs)?;

    let graph = config.graph(folder, way, &sizes)?.fused();
    let interpreter = Interpreter::new(graph, &model.weights(folder)?)?;
    let given: Vec<_> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let (mut times, mut since) = (BTreeMap::<&str, (usize, Duration)>::new(), Instant::now());
    let outputs = interpreter.run_observed(&given, &mut |node, _| {
        let time = times.entry(interpreter.graph().nodes[node].op.name()).or_default();
        *time = (time.0 + 1, time.1 + since.elapsed());
        since = Instant::now();
    })?;
    for (op, (nodes, time)) in times {
        println!("{op:<16} {nodes:3} nodes {:8.2} ms", time.as_secs_f64() * 1e3);
    }
    for (name, tensor) in outputs {
        println!("{name}: {}", tensor.shape);
    }
    Ok(())
}
