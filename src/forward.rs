//! One forward pass of one network on given tensors, in PyTorch's shapes and under diffusers' names.

use std::collections::BTreeMap;

use crate::error::{Error, Result, ten};
use crate::graph::Graph;
use crate::models::autoencoder::Autoencoder;
use crate::models::{clip, controlnet, unet, vae};
use crate::network::{Executor, Network};
use crate::tensor::{Shape, Tensor};
use crate::weights::{Changes, Model};

/// The networks of a model folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    TextEncoder,
    TextEncoder2,
    Unet,
    VaeDecoder,
    VaeEncoder,
    ControlNet,
}

impl Component {
    /// The folder of its configuration and weights.
    pub fn folder(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::Unet => "unet",
            Self::VaeDecoder | Self::VaeEncoder => "vae",
            Self::ControlNet => "controlnet",
        }
    }
}

/// Named tensors, as a file holds them.
pub type Tensors = BTreeMap<String, Tensor>;

/// What a component needs for one pass: its graph, all tensors of its file, and its inputs channels-last.
pub(crate) struct Prepared {
    pub graph: Graph,
    pub wanted: Vec<(String, Shape)>,
    pub inputs: Tensors,
}

/// Runs a component, with the changes of LoRA files, on `inputs` and returns its outputs. `tell` is told what a user should know.
///
/// # Errors
/// If an input is missing, unknown, misshapen or not finite, the network cannot be loaded or run, or a value is not
/// finite even in f32.
pub async fn forward(
    model: &Model,
    changes: &Changes,
    component: Component,
    inputs: Tensors,
    executor: &Executor,
    tell: &mut dyn FnMut(&str),
) -> Result<Tensors> {
    let prepared = prepare(model, component, inputs)?;
    let weights = changes.merged(component.folder(), model.weights(component.folder())?);
    let mut network = Network::load(executor, prepared.graph, &prepared.wanted, weights, tell).await?;
    let inputs: Vec<(&str, &Tensor)> = prepared.inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let outputs = network.run(&inputs, tell).await?;
    let mut named = Tensors::new();
    for (name, tensor) in outputs {
        if name == "moments" {
            let (mean, logvar) = vae::split_moments(&tensor)?;
            named.insert("mean".into(), mean.to_channels_first()?);
            named.insert("logvar".into(), logvar.to_channels_first()?);
        } else {
            let tensor = if tensor.shape.rank() == 4 { tensor.to_channels_first()? } else { tensor };
            named.insert(name, tensor);
        }
    }
    Ok(named)
}

/// Checks the inputs against the component's configuration and builds its graph for their shapes.
pub(crate) fn prepare(model: &Model, component: Component, inputs: Tensors) -> Result<Prepared> {
    let path = format!("{}/config.json", component.folder());
    let text = model.text(&path)?;
    let place = model.path(&path).display().to_string();
    let mut given = Given(inputs);
    let prepared = match component {
        Component::TextEncoder | Component::TextEncoder2 => {
            prepare_text(&clip::Config::from_json(&text, &place)?, component.folder(), &mut given)
        }
        Component::Unet => prepare_unet(&unet::Config::from_json(&text, &place)?, &mut given),
        Component::VaeDecoder | Component::VaeEncoder => {
            prepare_vae(&Autoencoder::from_json(&text, &place)?, component, &mut given)
        }
        Component::ControlNet => prepare_controlnet(&controlnet::Config::from_json(&text, &place)?, &mut given),
    }?;
    given.nothing_left()?;
    Ok(prepared)
}

fn prepare_text(config: &clip::Config, network: &str, given: &mut Given) -> Result<Prepared> {
    let ids = given.take("input_ids", 2)?;
    let [batch, tokens] = [ids.shape.dims()[0], ids.shape.dims()[1]];
    let pool = config.pool_rows(&ids).map_err(|e| e.at(network))?;
    let graph = config.graph(network, batch, tokens)?;
    let wanted = graph.wanted();
    let inputs = [("input_ids".to_string(), ids), ("pool_rows".to_string(), pool)].into();
    Ok(Prepared { graph, wanted, inputs })
}

fn prepare_unet(config: &unet::Config, given: &mut Given) -> Result<Prepared> {
    let (inputs, [batch, height, width, tokens]) = unet_inputs(config, given)?;
    let graph = config.graph(batch, height, width, tokens)?;
    Ok(Prepared { wanted: graph.wanted(), graph, inputs })
}

/// What a UNet and a ControlNet take: the inputs, and their batch, height, width and number of tokens.
fn unet_inputs(config: &unet::Config, given: &mut Given) -> Result<(Tensors, [usize; 4])> {
    let sample = given.image("sample", config.in_channels)?;
    let context = given.take("encoder_hidden_states", 3)?;
    let [batch, height, width, _] = sample.shape.image()?;
    let tokens = context.shape.dims()[1];
    let mut timestep = given.any("timestep")?;
    if timestep.data.len() == 1 {
        timestep = Tensor::new([batch], vec![timestep.data[0]; batch]);
    }
    let mut inputs: Tensors = [
        ("sample".to_string(), sample),
        ("encoder_hidden_states".to_string(), context),
        ("timestep".to_string(), timestep),
    ]
    .into();
    if config.is_sdxl() {
        inputs.insert("text_embeds".into(), given.take("text_embeds", 2)?);
        inputs.insert("time_ids".into(), given.take("time_ids", 2)?);
    }
    if config.guidance_width.is_some() {
        inputs.insert("timestep_cond".into(), given.take("timestep_cond", 2)?);
    }
    Ok((inputs, [batch, height, width, tokens]))
}

fn prepare_controlnet(config: &controlnet::Config, given: &mut Given) -> Result<Prepared> {
    let (mut inputs, [batch, height, width, tokens]) = unet_inputs(&config.unet, given)?;
    let image = given.image("controlnet_cond", controlnet::IMAGE_CHANNELS)?;
    let [_, image_height, image_width, _] = image.shape.image()?;
    let factor = config.factor();
    if [image_height, image_width] != [height * factor, width * factor] {
        return Err(Error::usage(format!(
            "the input controlnet_cond is {image_height} x {image_width} pixels, but a sample of {height} x {width} \
             takes {} x {}",
            height * factor,
            width * factor
        )));
    }
    inputs.insert("controlnet_cond".into(), image);
    let scale = given.optional("conditioning_scale")?.map_or(1.0, |scale| scale.data[0]);
    let graph = config.graph(batch, height, width, tokens, scale)?;
    Ok(Prepared { wanted: graph.wanted(), graph, inputs })
}

fn prepare_vae(config: &Autoencoder, component: Component, given: &mut Given) -> Result<Prepared> {
    let (name, channels) = match component {
        Component::VaeDecoder => ("z", config.latent_channels()),
        _ => ("sample", config.in_channels()),
    };
    let input = given.image(name, channels)?;
    let [batch, height, width, _] = input.shape.image()?;
    let graph = if component == Component::VaeDecoder {
        config.decoder(batch, height, width)?
    } else {
        config.encoder(batch, height, width)?
    };
    Ok(Prepared { graph, wanted: config.wanted()?, inputs: [(name.to_string(), input)].into() })
}

/// The tensors of an input file, taken one by one so that what is left over is known.
struct Given(Tensors);

impl Given {
    fn any(&mut self, name: &str) -> Result<Tensor> {
        let names: Vec<_> = self.0.keys().cloned().collect();
        let tensor = self.0.remove(name);
        let tensor = tensor.ok_or_else(|| Error::usage(format!("the inputs hold no {name}, only {}", ten(&names))))?;
        if tensor.shape.is_empty() {
            return Err(Error::usage(format!("the input {name} is empty: {}", tensor.shape)));
        }
        if let Some(index) = tensor.first_not_finite() {
            return Err(Error::NotFinite(format!("the input {name} is NaN or infinite at element {index}")));
        }
        Ok(tensor)
    }

    /// The same where it may be absent.
    fn optional(&mut self, name: &str) -> Result<Option<Tensor>> {
        if self.0.contains_key(name) { self.any(name).map(Some) } else { Ok(None) }
    }

    fn take(&mut self, name: &str, rank: usize) -> Result<Tensor> {
        let tensor = self.any(name)?;
        if tensor.shape.rank() != rank {
            let shape = &tensor.shape;
            return Err(Error::usage(format!("the input {name} should have {rank} dimensions, found {shape}")));
        }
        Ok(tensor)
    }

    /// A tensor `[B, C, H, W]` of so many channels, as `[B, H, W, C]`.
    fn image(&mut self, name: &str, channels: usize) -> Result<Tensor> {
        let tensor = self.take(name, 4)?;
        if tensor.shape.dims()[1] != channels {
            let shape = &tensor.shape;
            return Err(Error::usage(format!("the input {name} should be [B, {channels}, H, W], found {shape}")));
        }
        tensor.to_channels_last()
    }

    fn nothing_left(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.0.keys().collect();
        Err(Error::usage(format!("the inputs hold tensors that this component does not take: {}", ten(&names))))
    }
}
