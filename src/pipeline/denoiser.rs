//! The UNet cut by how often its parts have to run: what depends on the texts alone (the keys and values of
//! cross-attention) once for a picture, what depends on the time (the embeddings of every block) once for all steps, and
//! the rest at every step.

use super::{Run, sample_of};
use crate::conditioning::{Conditioning, repeat_rows};
use crate::error::Result;
use crate::graph::Graph;
use crate::models::unet;
use crate::network::{Network, Outputs};
use crate::tensor::{Shape, Tensor};

/// The UNet's input that the texts decide, and those that they and the time decide.
const OF_TEXT: [&str; 1] = ["encoder_hidden_states"];
const OF_TIME: [&str; 3] = ["timestep", "text_embeds", "time_ids"];

/// The part of the UNet that runs at every step, with what the other parts gave it.
pub(super) struct Denoiser {
    network: Network,
    /// For each step the time embeddings, with a row for every row of the network's batch.
    timed: Vec<Outputs>,
}

/// The graphs of the parts: of texts, of so many steps' times, and of one step.
pub(super) struct Parts {
    pub text: Graph,
    pub time: Graph,
    pub step: Graph,
    /// All parameters of the UNet.
    pub wanted: Vec<(String, Shape)>,
}

impl Parts {
    /// For `[height, width]` latents of `pictures` pictures, each drawn for `texts` texts of `tokens` tokens.
    ///
    /// # Errors
    /// As [`unet::Config::graph`].
    pub fn of(
        config: &unet::Config,
        [height, width]: [usize; 2],
        pictures: usize,
        [texts, tokens]: [usize; 2],
        steps: usize,
    ) -> Result<Self> {
        let whole = |rows| config.graph(rows, height, width, tokens);
        let [text, _] = whole(texts)?.hoisted(&OF_TEXT);
        let [time, _] = whole(steps * texts)?.hoisted(&OF_TIME);
        let whole = whole(pictures * texts)?;
        let [_, step] = whole.hoisted(&[&OF_TEXT[..], &OF_TIME].concat());
        Ok(Self { text, time, step, wanted: whole.wanted() })
    }
}

impl Denoiser {
    /// Runs what is run once, and loads the rest. `sizes` are SDXL's `time_ids`: original size, crop, target size.
    ///
    /// # Errors
    /// If a part cannot be loaded or run.
    pub async fn load(
        run: &mut Run<'_>,
        parts: Parts,
        conditioning: &Conditioning,
        sizes: [f32; unet::TIME_IDS],
        timesteps: &[f32],
        pictures: usize,
    ) -> Result<Self> {
        let texts = conditioning.context.shape.batch();
        let given = [(OF_TEXT[0], &conditioning.context)];
        let of_text = run.once(parts.text, &parts.wanted, &given, "the prompt").await?;
        let held = of_text.into_iter().map(|(name, tensor)| (name, repeat_rows(&tensor, pictures))).collect();

        let rows = texts * timesteps.len();
        let times = timesteps.iter().flat_map(|time| std::iter::repeat_n(*time, texts)).collect();
        let mut given = vec![("timestep", Tensor::new([rows], times))];
        if let Some(pooled) = &conditioning.pooled {
            let all = Tensor::new([rows, pooled.shape.channels()], pooled.data.repeat(timesteps.len()));
            given.push(("text_embeds", all));
            given.push(("time_ids", Tensor::new([rows, unet::TIME_IDS], sizes.repeat(rows))));
        }
        let given: Vec<_> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let of_time = run.once(parts.time, &parts.wanted, &given, "the schedule").await?;
        let timed = (0..timesteps.len()).map(|step| rows_of(&of_time, step * texts, texts, pictures)).collect();

        let mut network = run.load(run.executor, parts.step, "unet", &parts.wanted).await?;
        network.hold(held)?;
        Ok(Self { network, timed })
    }

    /// The UNet's output at a step, `[rows, H, W, C]`, for the scaled latents of all its rows.
    ///
    /// # Errors
    /// If the device fails, or a value is not finite even in f32.
    pub async fn run(&mut self, run: &mut Run<'_>, step: usize, sample: &Tensor) -> Result<Tensor> {
        let timed = self.timed[step].iter().map(|(name, tensor)| (name.as_str(), tensor));
        let inputs: Vec<_> = timed.chain([("sample", sample)]).collect();
        sample_of(run.pass(&mut self.network, &inputs, &format!("step {}", step + 1)).await?)
    }
}

/// These rows of every tensor, each for every picture.
fn rows_of(tensors: &Outputs, first: usize, count: usize, pictures: usize) -> Outputs {
    let cut = |tensor: &Tensor| {
        let row = tensor.data.len() / tensor.shape.batch();
        let data = tensor.data[first * row..][..count * row].to_vec();
        repeat_rows(&Tensor::new(tensor.shape.with_batch(count), data), pictures)
    };
    tensors.iter().map(|(name, tensor)| (name.clone(), cut(tensor))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::suite::Family;

    /// The parts of SD 1.5's UNet for a picture of 512 x 512 with guidance.
    fn sd15() -> Parts {
        let config = Family::Sd15.unet_config().unwrap();
        Parts::of(&config, [64, 64], 1, [2, 77], 25).unwrap()
    }

    #[test]
    fn a_step_of_sd15_takes_at_most_348_dispatches() {
        let nodes = sd15().step.fused().nodes;
        let mut h = std::collections::BTreeMap::new();
        for n in &nodes {
            *h.entry(n.op.name()).or_insert(0) += 1;
        }
        println!("{h:?}");
        assert!(nodes.len() <= 348, "{}", nodes.len());
    }
}
