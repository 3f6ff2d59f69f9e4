//! One forward pass of one network on given tensors, in PyTorch's shapes and under diffusers' names.

use crate::components::{Component, Components};
use crate::error::{Notice, Result, Warn};
use crate::graph::Graph;
pub use crate::models::ports::Tensors;
use crate::models::ports::bind;
use crate::network::{Executor, Network};
use crate::tensor::{Shape, Tensor};
use crate::weights::{Changes, Model};

/// What a component needs for one pass: its graph, all tensors of its file, and the graph's inputs.
pub(crate) struct Prepared {
    pub graph: Graph,
    pub wanted: Vec<(String, Shape)>,
    pub inputs: Tensors,
    /// What the ports were given, which the outputs may depend on too.
    pub given: Tensors,
}

impl Prepared {
    /// Checks the inputs, as a file holds them, against the ports of a pass and builds its graph for their shapes.
    ///
    /// # Errors
    /// If an input is missing, unknown, misshapen or not finite, or no graph has these shapes.
    pub fn new(component: &Component, way: &str, inputs: Tensors) -> Result<Self> {
        let Component { folder, config } = component;
        let (given, sizes) = bind(&config.ports(way), inputs)?;
        let mut inputs = given.clone();
        config.prepare(way, &mut inputs).map_err(|error| error.at(folder))?;
        Ok(Self { graph: config.graph(folder, way, &sizes)?, wanted: config.wanted(folder)?, inputs, given })
    }
}

/// Runs the pass of that name ([`Components::pass`]), with the changes of LoRA files, on `inputs` and returns its
/// outputs. `tell` is called with what a user should know.
///
/// # Errors
/// If the model has no such pass, an input is missing, unknown, misshapen or not finite, the network cannot be loaded
/// or run, or a value is not finite even in f32.
pub async fn forward(
    model: &Model,
    changes: &Changes,
    pass: &str,
    inputs: Tensors,
    executor: &Executor,
    tell: &mut Warn<'_>,
) -> Result<Tensors> {
    let components = Components::of(model)?;
    let (component, way) = components.pass(model, pass)?;
    let Component { folder, config } = component;
    let Prepared { graph, wanted, inputs, given } = Prepared::new(component, way, inputs)?;
    let weights = changes.merged(folder, model.weights(folder)?);
    let warn = &mut |notice: Notice<'_>| notice.warning().into_iter().for_each(&mut *tell);
    let mut network = Network::load(executor, graph, &wanted, weights, warn).await?;
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let outputs = network.run(&inputs, tell).await?.into_iter().collect();
    let outputs = config.finish(way, &given, outputs)?;
    let as_files = |tensor: Tensor| if tensor.shape.rank() == 4 { tensor.to_channels_first() } else { Ok(tensor) };
    outputs.into_iter().map(|(name, tensor)| Ok((name, as_files(tensor)?))).collect()
}
