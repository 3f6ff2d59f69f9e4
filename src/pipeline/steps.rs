//! Noise to latents, for as many pictures as fit at once: by a sampler on the host or, where a device computes and the
//! sampler allows it, by sums that are a part of the UNet's graph. The device then goes from step to step by itself. Both
//! make the same pictures, but for rounding.

use std::ops::Range;

use super::Pipeline;
use super::denoise::{Picture, guide, scaled, start_latents, step};
use super::denoiser::{Denoiser, Parts, by_name};
use super::run::Run;
use crate::conditioning::Conditioning;
use crate::error::{Error, Result};
use crate::gpu::session::Carry;
use crate::graph::Graph;
use crate::network::{Executor, Outputs};
use crate::ops::sampler_input::SamplerInput;
use crate::ops::sampler_step::{FACTORS, SamplerStep};
use crate::ops::{Kind, Ty};
use crate::rng::Generator;
use crate::samplers::{LinearSampler, LinearStep, Sampler};
use crate::tensor::{Shape, Tensor};

/// Inputs of a step's graph that does a [`LinearStep`].
const SLOTS: &str = "sampler_slots";
const INPUT_FACTORS: &str = "sampler_input_factors";
const STEP_FACTORS: &str = "sampler_step_factors";
/// Its output: the next latents and the UNet's output after guidance.
const NEXT: &str = "sampler_step";

/// Which pictures of a request are made, and which part of it they are.
#[derive(Clone)]
struct Share {
    pictures: Range<usize>,
    part: usize,
    parts: usize,
}

impl Run<'_> {
    /// The latents of these pictures, which are part number `part` of `parts`: `[pictures, channels, height, width]`.
    pub async fn part(
        &mut self,
        conditioning: &Conditioning,
        pictures: Range<usize>,
        (part, parts): (usize, usize),
    ) -> Result<Tensor> {
        let share = Share { pictures, part, parts };
        match self.executor {
            Executor::Gpu(..) => match LinearSampler::of(self.sampler()?) {
                Some(chain) => self.by_sums(conditioning, &share, &chain).await,
                None => self.by_sampler(conditioning, &share).await,
            },
            Executor::Cpu => self.by_sampler(conditioning, &share).await,
        }
    }

    /// So many of the share's steps are done.
    fn step_done(&mut self, share: &Share, done: usize, steps: usize) -> Result<()> {
        self.told_step(share.part * steps + done, share.parts * steps)
    }

    fn sampler(&self) -> Result<Box<dyn Sampler>> {
        self.pipeline.sampler(&self.settings)
    }

    /// The pictures, the UNet, changed by `graph`, and the latents to start from.
    async fn begin(
        &mut self,
        conditioning: &Conditioning,
        share: &Share,
        graph: impl FnOnce(Graph) -> Result<Graph>,
    ) -> Result<(Vec<Picture>, Denoiser, Tensor)> {
        let Pipeline { unet, vae, .. } = self.pipeline;
        let (request, settings) = (self.request, self.settings.clone());
        let (count, factor) = (share.pictures.len(), vae.factor());
        let size = [settings.height / factor, settings.width / factor];
        let mut pictures = Vec::with_capacity(count);
        for index in share.pictures.clone() {
            let noise = request.rng.seeded(request.seed.wrapping_add(index as u64));
            pictures.push(Picture { sampler: self.sampler()?, noise });
        }
        let timesteps = pictures[0].sampler.timesteps().to_vec();
        let controls: Vec<_> = self.pipeline.controls.iter().map(|control| control.config.clone()).collect();
        let mut graphs = Parts::of(unet, &controls, size, count, &conditioning.context.shape, timesteps.len())?;
        graphs.step = graph(graphs.step)?;
        let (height, width) = (settings.height as f32, settings.width as f32);
        let sizes = [height, width, 0.0, 0.0, height, width];
        let denoiser = Denoiser::load(self, graphs, conditioning, sizes, &timesteps, count).await?;
        // Only now: pictures that no memory holds have been refused.
        let shape = [request.batch, unet.in_channels, size[0], size[1]].into();
        let latents = start_latents(request, shape, share.pictures.clone(), &mut pictures)?;
        Ok((pictures, denoiser, latents))
    }

    async fn by_sampler(&mut self, conditioning: &Conditioning, share: &Share) -> Result<Tensor> {
        let texts = conditioning.context.shape.batch();
        let (mut pictures, mut denoiser, mut latents) = self.begin(conditioning, share, Ok).await?;
        let steps = pictures[0].sampler.timesteps().len();
        for index in 0..steps {
            let sample = scaled(&latents, pictures[0].sampler.input_scale(index), texts)?;
            let given = denoiser.given(index);
            let inputs: Vec<_> = by_name(&given).chain([("sample", &sample)]).collect();
            let output = denoiser.run(self, index, &inputs, "sample").await?.to_channels_first()?;
            let (guided, guidance) = (self.pipeline.guided(&self.settings), self.settings.guidance);
            let output = if guided { guide(&output.data, guidance) } else { output.data };
            step(&mut pictures, index, &output, &mut latents.data);
            self.step_done(share, index + 1, steps)?;
        }
        denoiser.release(self);
        Ok(latents)
    }

    /// The same by a chain: on the device alone or, to look into each step, with the host between them. The kernels are the
    /// same, so the latents are, bit for bit.
    async fn by_sums(&mut self, conditioning: &Conditioning, share: &Share, chain: &LinearSampler) -> Result<Tensor> {
        let (count, texts) = (share.pictures.len(), conditioning.context.shape.batch());
        let with_sampler = |graph| sampling(graph, chain.slots, count, texts);
        let (pictures, mut denoiser, latents) = self.begin(conditioning, share, with_sampler).await?;
        let latents = latents.to_channels_last()?;
        let mut noise: Vec<_> = pictures.into_iter().map(|picture| picture.noise).collect();
        let mut made = None;
        if !self.request.check {
            made = self.on_device(&denoiser, share, chain, &latents, &mut noise.clone()).await?;
        }
        let made = match made {
            Some(made) => made,
            None => self.step_by_step(&mut denoiser, share, chain, latents, &mut noise).await?,
        };
        denoiser.release(self);
        made.to_channels_first()
    }

    /// `None` if the UNet is not whole on the device, or what comes out is not finite.
    async fn on_device(
        &mut self,
        denoiser: &Denoiser,
        share: &Share,
        chain: &LinearSampler,
        latents: &Tensor,
        noise: &mut [Generator],
    ) -> Result<Option<Tensor>> {
        let Some(session) = denoiser.network().session() else { return Ok(None) };
        self.holds(session.bytes());
        let mut runs = session.chain(&[SLOTS]);
        runs.write(SLOTS, 0, latents)?;
        for (index, link) in chain.steps.iter().enumerate() {
            if let Some((slot, noise)) = fresh_noise(link, noise, &latents.shape)? {
                runs.write(SLOTS, slot, &noise)?;
            }
            let given = given(denoiser, index, link, self.settings.guidance);
            let carry = |(from, to)| Carry { output: NEXT, from, input: SLOTS, to };
            runs.start(&by_name(&given).collect::<Vec<_>>(), &carried(link).map(carry).collect::<Vec<_>>())?;
            // The device has the next step when it is done with one.
            if index > 0 {
                runs.wait(1)?;
                self.step_done(share, index, chain.steps.len())?;
            }
        }
        runs.wait(0)?;
        self.step_done(share, chain.steps.len(), chain.steps.len())?;
        let made = entry(&runs.read(SLOTS).await?, chain.last());
        if made.first_not_finite().is_none() {
            return Ok(Some(made));
        }
        self.warn(&"the latents are NaN or infinite in the end: all steps again, each looked at".into());
        Ok(None)
    }

    async fn step_by_step(
        &mut self,
        denoiser: &mut Denoiser,
        share: &Share,
        chain: &LinearSampler,
        latents: Tensor,
        noise: &mut [Generator],
    ) -> Result<Tensor> {
        let (shape, mut data) = (latents.shape, latents.data);
        data.resize(chain.slots * shape.len(), 0.0);
        let mut slots = Tensor::new(Shape::new([&[chain.slots], shape.dims()].concat()), data);
        for (index, link) in chain.steps.iter().enumerate() {
            if let Some((slot, noise)) = fresh_noise(link, noise, &shape)? {
                put(&mut slots, slot, &noise);
            }
            let given = given(denoiser, index, link, self.settings.guidance);
            let inputs: Vec<_> = by_name(&given).chain([(SLOTS, &slots)]).collect();
            let next = denoiser.run(self, index, &inputs, NEXT).await?;
            carried(link).for_each(|(from, to)| put(&mut slots, to, &entry(&next, from)));
            self.step_done(share, index + 1, chain.steps.len())?;
        }
        Ok(entry(&slots, chain.last()))
    }
}

/// A step's graph with a sampler's sums before and after it.
pub(super) fn sampling(mut graph: Graph, slots: usize, pictures: usize, texts: usize) -> Result<Graph> {
    let missing = |what: &str| Error::shape(format!("the UNet has no {what} sample"));
    let sample = graph.input_named("sample").ok_or_else(|| missing("input"))?;
    let found = graph.outputs.iter().find(|(name, _)| name == "sample");
    let output = found.map(|(_, id)| *id).ok_or_else(|| missing("output"))?;
    let each = graph.shape(sample).with_batch(pictures);
    let shape = Shape::new([&[slots], each.dims()].concat());
    let factors = |count: usize| Ty::new(Kind::F32, [count]);
    let given = [(SLOTS, Ty::new(Kind::F32, shape)), (INPUT_FACTORS, factors(slots))];
    let slots_given = graph.compute_input("sample", "sampler.input", SamplerInput { texts }, &given)?[0];
    let step_factors = graph.input(STEP_FACTORS, Kind::F32, [FACTORS + slots]);
    let step = SamplerStep { guided: texts == 2 };
    let next = graph.node("sampler.step", step, &[output, slots_given, step_factors])?;
    graph.outputs = vec![(NEXT.to_string(), next)];
    Ok(graph)
}

/// What the UNet and the sampler's sums are given at a step beside the slots.
fn given(denoiser: &Denoiser, index: usize, link: &LinearStep, guidance: f32) -> Outputs {
    let mut input = vec![0.0; link.sum.len()];
    input[link.latents] = link.scale;
    let step = [&[guidance, link.output], &link.sum[..]].concat();
    let factors = [(INPUT_FACTORS, input), (STEP_FACTORS, step)];
    let factors = factors.map(|(name, factors)| (name.to_string(), Tensor::new([factors.len()], factors)));
    denoiser.given(index).into_iter().chain(factors).collect()
}

/// Which entries of a step's output go into which slots.
fn carried(link: &LinearStep) -> impl Iterator<Item = (usize, usize)> {
    [(0, link.next)].into_iter().chain(link.keep.map(|to| (1, to)))
}

/// Every picture's own noise and its slot, of a step that draws any and uses it.
fn fresh_noise(link: &LinearStep, generators: &mut [Generator], shape: &Shape) -> Result<Option<(usize, Tensor)>> {
    if !link.draws {
        return Ok(None);
    }
    let [count, height, width, channels] = shape.image()?;
    let noise = generators.iter_mut().flat_map(|generator| generator.normal(height * width * channels)).collect();
    let noise = Tensor::new([count, channels, height, width], noise).to_channels_last()?;
    Ok(link.noise.map(|slot| (slot, noise)))
}

/// An entry of a tensor's first dimension.
fn entry(tensor: &Tensor, index: usize) -> Tensor {
    let shape = Shape::new(&tensor.shape.dims()[1..]);
    let data = tensor.data[index * shape.len()..][..shape.len()].to_vec();
    Tensor::new(shape, data)
}

fn put(tensor: &mut Tensor, index: usize, entry: &Tensor) {
    tensor.data[index * entry.data.len()..][..entry.data.len()].copy_from_slice(&entry.data);
}
