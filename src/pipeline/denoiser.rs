//! The UNet cut by how often its parts have to run: what depends on the texts alone (the keys and values of
//! cross-attention) once for a picture, what depends on the time (the embeddings of every block) once for all steps, and
//! the rest at every step. ControlNets are in its graph, and so are cut likewise; what they make of their pictures alone
//! runs once, too, for all rows together.

use super::kept::Resident;
use super::run::{Phase, Run, Wanted};
use crate::conditioning::{Conditioning, repeat_rows};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::config::{FORWARD, NetworkConfig};
use crate::models::ports::Changes;
use crate::models::{controlnet, unet};
use crate::network::{Network, Outputs};
use crate::tensor::{Shape, Tensor};

/// The UNet's input that holds the texts.
const TEXT: &str = "encoder_hidden_states";

/// The part of the UNet that runs at every step, with what the other parts gave it.
pub(super) struct Denoiser {
    network: Resident,
    /// The time embeddings, with a row for every step and text.
    timed: Outputs,
    /// The inputs that are the ControlNets' scales, and those at every step.
    scales: Vec<(String, Vec<f32>)>,
    texts: usize,
    pictures: usize,
}

/// The graphs of the parts: of the ControlNets' pictures, of texts, of so many steps' times, and of one step.
pub(super) struct Parts {
    pub image: Graph,
    pub text: Graph,
    pub time: Graph,
    pub step: Graph,
    /// All parameters of the UNet and the ControlNets.
    pub wanted: Vec<(String, Shape)>,
}

impl Parts {
    /// For `[height, width]` latents of `pictures` pictures, each drawn for texts of the shape `[texts, tokens, channels]`.
    ///
    /// # Errors
    /// As [`unet::Config::controlled_graph`].
    pub fn of(
        config: &unet::Config,
        controls: &[controlnet::Config],
        [height, width]: [usize; 2],
        pictures: usize,
        text: &Shape,
        steps: usize,
    ) -> Result<Self> {
        let (texts, tokens) = (text.batch(), text.rows() / text.batch());
        let whole = |rows| config.controlled_graph(controls, rows, height, width, tokens);
        let ports = config.ports(FORWARD);
        let of =
            |changes| ports.iter().filter(|port| port.changes == changes).map(|port| port.name).collect::<Vec<_>>();
        let (of_text, of_time) = (of(Changes::Text), of(Changes::Time));
        let of_image: Vec<_> = (0..controls.len()).map(controlnet::image_input).collect();
        let of_image: Vec<_> = of_image.iter().map(String::as_str).collect();
        let [image, _] = whole(1)?.hoisted(&of_image);
        let [text, _] = whole(texts)?.hoisted(&of_text);
        let [time, _] = whole(steps * texts)?.hoisted(&of_time);
        let whole = whole(pictures * texts)?;
        let [_, step] = whole.hoisted(&[of_text, of_time, of_image].concat());
        Ok(Self { image, text, time, step, wanted: whole.wanted() })
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
        let parameters = &parts.wanted;
        let wanted = |what, graph| Wanted { what, component: "unet", graph, parameters };
        let texts = conditioning.context.shape.batch();
        let given = [(TEXT, &conditioning.context)];
        let of_text = run.once(wanted("UNet's part for prompts", parts.text), &given, "the prompt").await?;
        run.mark(Phase::Denoise, "keys and values of the prompt");
        let mut held: Outputs =
            of_text.into_iter().map(|(name, tensor)| (name, repeat_rows(&tensor, pictures))).collect();

        let images = run.control_images();
        let given: Vec<_> = images.iter().map(|(name, image)| (name.as_str(), image)).collect();
        let of_image = run.once(wanted("ControlNets' part for pictures", parts.image), &given, "control image").await?;
        if !images.is_empty() {
            run.mark(Phase::Denoise, "control images");
        }
        held.extend(of_image.into_iter().map(|(name, tensor)| (name, repeat_rows(&tensor, texts * pictures))));

        let rows = texts * timesteps.len();
        let times = timesteps.iter().flat_map(|time| std::iter::repeat_n(*time, texts)).collect();
        let mut given = vec![("timestep", Tensor::new([rows], times))];
        if let Some(pooled) = &conditioning.pooled {
            let all = Tensor::new([rows, pooled.shape.channels()], pooled.data.repeat(timesteps.len()));
            given.push(("text_embeds", all));
            given.push(("time_ids", Tensor::new([rows, unet::TIME_IDS], sizes.repeat(rows))));
        }
        if let Some(embedding) = run.guidance_embedding() {
            given.push(("timestep_cond", Tensor::new([rows, embedding.len()], embedding.repeat(rows))));
        }
        let given: Vec<_> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let timed = run.once(wanted("UNet's part for times", parts.time), &given, "the schedule").await?;
        run.mark(Phase::Denoise, "embeddings of the times");

        let mut network = run.load(run.executor, wanted(STEP, parts.step)).await?;
        network.network.hold(held)?;
        let scales = run.control_scales(timesteps.len());
        Ok(Self { network, timed, scales, texts, pictures })
    }

    /// The output of that name at a step, for all inputs.
    ///
    /// # Errors
    /// If the device fails, or a value is not finite even in f32.
    pub async fn run(
        &mut self,
        run: &mut Run<'_>,
        step: usize,
        inputs: &[(&str, &Tensor)],
        output: &str,
    ) -> Result<Tensor> {
        let mut outputs = run.pass(&mut self.network.network, inputs, &format!("step {}", step + 1)).await?;
        outputs.remove(output).ok_or_else(|| Error::shape(format!("the UNet has no output {output}")))
    }

    /// What the UNet is given at a step beside the latents.
    pub fn given(&self, step: usize) -> Outputs {
        // Cut when they are needed: all steps' rows for a large batch would be more than the latents by far.
        let timed = rows_of(&self.timed, step * self.texts, self.texts, self.pictures);
        let rows = self.texts * self.pictures;
        let scale =
            |(name, scales): &(String, Vec<f32>)| (name.clone(), Tensor::new([rows, 1], vec![scales[step]; rows]));
        timed.into_iter().chain(self.scales.iter().map(scale)).collect()
    }

    /// The part that runs at every step.
    pub fn network(&self) -> &Network {
        &self.network.network
    }

    /// Lets go of the network, or keeps it for the next picture.
    pub fn release(self, run: &mut Run<'_>) {
        run.release(STEP, self.network);
    }
}

pub(super) fn by_name(tensors: &Outputs) -> impl Iterator<Item = (&str, &Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
}

/// What the part that runs at every step is called.
const STEP: &str = "UNet";

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
    use crate::graph::plan::{Storage, session_bytes};
    use crate::lab::suite::SD15;
    use crate::pipeline::steps::sampling;
    use crate::tensor::DType;

    /// Everything else is diffusers' default.
    const SD15_UNET: &str = r#"{"cross_attention_dim": 768}"#;
    const F16: Storage = Storage { act: DType::F16, weight: DType::F16 };

    /// The parts of SD 1.5's UNet for a picture of 512 x 512 with guidance.
    fn sd15() -> Parts {
        let config = unet::Config::from_json(SD15_UNET, "sd15").unwrap();
        Parts::of(&config, &[], [64, 64], 1, &[2, 77, 768].into(), 25).unwrap()
    }

    #[test]
    fn a_step_of_sd15_takes_at_most_340_dispatches() {
        let nodes = sampling(sd15().step, 3, 1, 2).unwrap().fused().nodes;
        assert!(nodes.len() <= 340, "{}", nodes.len());
    }

    #[test]
    fn a_controlnet_is_counted_in_what_a_step_takes_and_its_picture_is_made_small_once() {
        let config = unet::Config::from_json(SD15_UNET, "sd15").unwrap();
        let control = controlnet::Config::from_json(r#"{"cross_attention_dim": 768}"#, "controlnet").unwrap();
        let (alone, guided) = (sd15(), Parts::of(&config, &[control], [64, 64], 1, &[2, 77, 768].into(), 25).unwrap());
        let [alone_bytes, bytes] = [&alone, &guided].map(|parts| session_bytes(&parts.step.clone().fused(), F16));
        // Two bytes for each of its 361 million parameters, less those of the other parts.
        assert!((640_000_000..740_000_000).contains(&(bytes - alone_bytes)), "{}", bytes - alone_bytes);
        assert!(alone.image.nodes.is_empty());
        assert_eq!(guided.image.outputs.len(), 1);
        assert!(guided.step.nodes.iter().all(|node| !node.name.contains("controlnet_cond_embedding")));
    }

    #[test]
    fn sd15_at_512_takes_2_6_gb_with_everything_resident_and_its_decoder_under_0_7() {
        let Parts { text, time, step, .. } = sd15();
        let networks = SD15.networks(64, 2).unwrap();
        let [encoder, _, decoder] = &networks[..] else { panic!("SD 1.5 has three networks") };
        let [text, time, step] = [text, time, step].map(|part| session_bytes(&part.fused(), F16));
        let [encoder, decoder] = [encoder, decoder].map(|graph| session_bytes(graph, F16));
        assert!(decoder < 700_000_000, "{decoder}");
        let all = text + time + step + encoder + decoder;
        assert!(all < 2_600_000_000, "{text} + {time} + {step} + {encoder} + {decoder} = {all}");
    }
}
