//! The step loop: noise to what a system decodes, for as many pictures as fit at once, by a sampler on the host or,
//! where a device computes and the sampler allows it, by sums that are a part of the network's graph. The device then
//! goes from step to step by itself. Both make the same pictures, but for rounding.

use super::cut::{BESIDE, Cut, Given, SAMPLE, Stepper, by_name};
use super::guidance::Guidance;
use super::kit::Kit;
use super::noise::{First, noise_of, normal};
use super::windows::Windows;
use crate::error::{Error, Result};
use crate::gpu::session::Carry;
use crate::graph::Graph;
use crate::network::Executor;
use crate::ops::sampler_input::SamplerInput;
use crate::ops::sampler_step::SamplerStep;
use crate::ops::{Kind, Ty};
use crate::rng::Generator;
use crate::samplers::{LinearSampler, LinearStep, Sampler};
use crate::tensor::{Shape, Tensor};

/// Inputs of a step's graph that does a [`LinearStep`].
const SLOTS: &str = "sampler_slots";
const INPUT_FACTORS: &str = "sampler_input_factors";
const STEP_FACTORS: &str = "sampler_step_factors";
/// Its output: the next state and the network's output after guidance.
const NEXT: &str = "sampler_step";

/// Makes one picture's sampler, which remembers earlier steps.
pub type NewSampler<'a> = &'a (dyn Fn() -> Result<Sampler> + Sync);

/// What a loop is given: everything that is of one system.
pub struct Loop<'a> {
    /// The network, cut for these pictures: for their whole states, or for one of `windows`.
    pub cut: Cut,
    /// What its parts are given.
    pub given: Given,
    /// Makes a sampler for each picture.
    pub sampler: NewSampler<'a>,
    /// Of the state of all pictures: `[pictures, ..]`, channels last.
    pub state: Shape,
    /// What it begins with.
    pub begun: Begun,
    /// Those that the network sees one by one, where it does not see the state as a whole.
    pub windows: Option<&'a mut Windows>,
    /// Each picture's own generator, so that a picture does not depend on its batch.
    pub noise: Vec<Generator>,
    /// How many steps are done before this loop's, and how many there are in all.
    pub told: (usize, usize),
}

/// What a loop begins with.
pub struct Begun {
    /// What its first state is made of.
    pub start: Start,
    /// What of the state is not drawn. Only a loop on the host holds it, so the cut is not [`Cut::sampled`].
    pub held: Option<Held>,
}

impl From<Start> for Begun {
    fn from(start: Start) -> Self {
        Self { start, held: None }
    }
}

/// What a loop's first state is made of.
pub enum Start {
    /// Noise.
    Noise(First),
    /// Pictures' own states, with noise to the level of the first step.
    Noised(Tensor, First),
    /// The state that another loop left.
    State(Tensor),
}

/// Pixels of the state that are held to those of pictures: after each step they are these again, with the first noise
/// to the level of the next (diffusers' `..InpaintPipeline` of a network that is not made for it).
pub struct Held {
    /// The pictures' own states: `[pictures, height, width, channels]`.
    pub pictures: Tensor,
    /// Of the pixels of one state those that are drawn, and not held.
    pub drawn: Vec<bool>,
}

impl Held {
    fn hold(&self, state: &mut Tensor, (signal, sigma): (f32, f32), noise: &Tensor) {
        let channels = state.shape.channels();
        let own = self.pictures.data.chunks_exact(channels).zip(noise.data.chunks_exact(channels));
        let pixels = state.data.chunks_exact_mut(channels).zip(own).zip(self.drawn.iter().cycle());
        for ((state, (own, noise)), _) in pixels.filter(|(_, drawn)| !**drawn) {
            let own = own.iter().zip(noise).map(|(own, noise)| signal * own + sigma * noise);
            state.iter_mut().zip(own).for_each(|(state, own)| *state = own);
        }
    }
}

impl Cut {
    /// The same with a sampler's sums in the step's graph, where the executor can do them.
    ///
    /// # Errors
    /// If the network does not take and give a state.
    pub fn sampled(mut self, executor: &Executor, sampler: NewSampler<'_>) -> Result<Self> {
        if let (Executor::Gpu(..), Some(_)) = (executor, self.guidance.chained()) {
            self.linear = LinearSampler::of(sampler()?);
        }
        if let Some(linear) = &self.linear {
            self.step = sampling(self.step, linear.slots, self.pictures, self.guidance.rows)?;
        }
        Ok(self)
    }
}

impl Loop<'_> {
    /// The state after the last step.
    ///
    /// # Errors
    /// If the network cannot be loaded or run, or the call is cancelled.
    pub async fn run(self, kit: &mut Kit<'_>) -> Result<Tensor> {
        self.run_on(kit).await.map(|(state, _)| state)
    }

    /// The same, and the generators as they are then, for a loop that goes on.
    ///
    /// # Errors
    /// As [`Loop::run`].
    pub async fn run_on(self, kit: &mut Kit<'_>) -> Result<(Tensor, Vec<Generator>)> {
        let Self { mut cut, given, sampler, state, begun, mut windows, noise, told } = self;
        let linear = cut.linear.take();
        let (name, guidance) = (cut.name, cut.guidance.clone());
        let stepper = Stepper::load(kit, cut, given, windows.is_none()).await?;
        if let Some(windows) = &mut windows
            && let Some(why) = windows.why.take()
        {
            kit.warn(why.on(format!("the {name} runs {windows}")));
        }
        // Only now: pictures that no memory holds have been refused.
        let first = sampler()?;
        let mut looped = Looped { stepper, guidance, held: None, windows: windows.as_deref(), noise, first, told };
        let state = looped.start(state, begun);
        kit.steps_done(told.0, told.1);
        let made = match linear {
            Some(linear) => looped.by_sums(kit, &linear, state).await?,
            None => looped.by_sampler(kit, sampler, state).await?,
        };
        let Looped { stepper, noise, .. } = looped;
        stepper.release(kit);
        Ok((made, noise))
    }
}

/// A loop whose network is loaded.
struct Looped<'a> {
    stepper: Stepper,
    guidance: Guidance,
    /// What is held, and the first noise.
    held: Option<(Held, Tensor)>,
    windows: Option<&'a Windows>,
    noise: Vec<Generator>,
    /// A sampler that has not begun: what is the same for all pictures.
    first: Sampler,
    told: (usize, usize),
}

impl Looped<'_> {
    /// What sampling starts from.
    fn start(&mut self, shape: Shape, Begun { start, held }: Begun) -> Tensor {
        let sampler = &self.first;
        let (state, mut first) = match start {
            Start::Noise(mut first) => {
                let (noise, sigma) = (first.draw(&mut self.noise, &shape), sampler.init_noise_sigma());
                (Tensor::new(shape.clone(), noise.data.iter().map(|v| v * sigma).collect()), first)
            }
            Start::Noised(pictures, mut first) => {
                let noise = first.draw(&mut self.noise, &shape);
                (Tensor::new(shape.clone(), sampler.noised(&pictures.data, &noise.data)), first)
            }
            Start::State(state) => return state,
        };
        self.held = held.map(|held| (held, first.draw(&mut self.noise, &shape).clone()));
        state
    }

    /// This many evaluations of the loop are done, which may end a step.
    fn evaluated(&self, kit: &mut Kit<'_>, evaluations: usize) -> Result<()> {
        let (before, all) = self.told;
        let [last, done] = [evaluations - 1, evaluations].map(|count| self.first.steps_done(count));
        if done > last {
            kit.steps_done(before + done, all);
        }
        kit.evaluated()
    }

    async fn by_sampler(&mut self, kit: &mut Kit<'_>, sampler: NewSampler<'_>, mut state: Tensor) -> Result<Tensor> {
        let mut samplers = self.noise.iter().map(|_| sampler()).collect::<Result<Vec<_>>>()?;
        let one = state.shape.with_batch(1);
        let inputs = state.shape.with_batch(state.shape.batch() * self.guidance.rows);
        for index in 0..samplers[0].timesteps().len() {
            let scale = samplers[0].input_scale(index);
            let scaled: Vec<f32> = state.data.iter().map(|v| v * scale).collect();
            let sample = Tensor::new(inputs.clone(), scaled.repeat(self.guidance.rows));
            let rows = self.predict(kit, index, sample).await?;
            let output = self.guidance.of(rows, samplers.len(), samplers[0].guidance_factor(index));
            let each = output.chunks_exact(one.len()).zip(state.data.chunks_exact_mut(one.len()));
            for ((sampler, noise), (output, state)) in samplers.iter_mut().zip(&mut self.noise).zip(each) {
                let next = sampler.step(index, output, state, &mut |_| normal(noise, &one));
                state.copy_from_slice(&next);
            }
            if let Some((held, noise)) = &self.held {
                held.hold(&mut state, self.first.mix_after(index), noise);
            }
            self.evaluated(kit, index + 1)?;
        }
        Ok(state)
    }

    /// What the network says of every row: at once or, where it does not see the states so, by windows.
    async fn predict(&mut self, kit: &mut Kit<'_>, index: usize, sample: Tensor) -> Result<Vec<f32>> {
        let shape = sample.shape.clone();
        let given = self.stepper.given(index).into_iter().chain([(SAMPLE.to_string(), sample)]);
        let (wide, fixed): (Vec<_>, Vec<_>) = given.partition(|(name, _)| [SAMPLE, BESIDE].contains(&name.as_str()));
        let Some(windows) = self.windows else {
            let inputs = [by_name(&wide), by_name(&fixed)].concat();
            return Ok(self.stepper.run(kit, index, &inputs, SAMPLE).await?.data);
        };
        let mut whole = Tensor::zeros(shape);
        for place in windows.places() {
            kit.stop_if_cancelled()?;
            let cut = |(name, tensor): &(String, Tensor)| Ok((name.clone(), windows.cut(tensor, place)?));
            let wide = wide.iter().map(cut).collect::<Result<Vec<_>>>()?;
            let inputs = [by_name(&wide), by_name(&fixed)].concat();
            let part = self.stepper.run(kit, index, &inputs, SAMPLE).await?;
            windows.add(&mut whole, &part.data, place);
        }
        Ok(whole.data)
    }

    /// The same as sums: on the device alone or, to check each step, with the host between them. The kernels are
    /// the same, so the pictures are, bit for bit.
    async fn by_sums(&mut self, kit: &mut Kit<'_>, linear: &LinearSampler, state: Tensor) -> Result<Tensor> {
        let made = if kit.request.check { None } else { self.on_device(kit, linear, &state).await? };
        match made {
            Some(made) => Ok(made),
            None => self.step_by_step(kit, linear, state).await,
        }
    }

    /// `None` if the network is not whole on the device, or what comes out is not finite.
    async fn on_device(&mut self, kit: &mut Kit<'_>, linear: &LinearSampler, state: &Tensor) -> Result<Option<Tensor>> {
        let Some(session) = self.stepper.network().session() else { return Ok(None) };
        kit.holds(session.bytes());
        let mut noise = self.noise.clone();
        let mut runs = session.chain(&[SLOTS]);
        runs.write(SLOTS, 0, state)?;
        for (index, step) in linear.steps.iter().enumerate() {
            if let Some((slot, noise)) = fresh_noise(step, &mut noise, &state.shape) {
                runs.write(SLOTS, slot, &noise)?;
            }
            let carry = |(from, to)| Carry { output: NEXT, from, input: SLOTS, to };
            runs.start(&by_name(&self.given(index, step)), &carried(step).map(carry).collect::<Vec<_>>())?;
            // The device has the next step when it is done with one.
            if index > 0 {
                runs.wait(1)?;
                self.evaluated(kit, index)?;
            }
        }
        runs.wait(0)?;
        self.evaluated(kit, linear.steps.len())?;
        let made = entry(&runs.read(SLOTS).await?, linear.last());
        if made.first_not_finite().is_none() {
            self.noise = noise;
            return Ok(Some(made));
        }
        kit.warn("what the steps made is NaN or infinite in the end: all steps again, each checked");
        Ok(None)
    }

    async fn step_by_step(&mut self, kit: &mut Kit<'_>, linear: &LinearSampler, state: Tensor) -> Result<Tensor> {
        let (shape, mut data) = (state.shape, state.data);
        data.resize(linear.slots * shape.len(), 0.0);
        let mut slots = Tensor::new(Shape::new([&[linear.slots], shape.dims()].concat()), data);
        for (index, step) in linear.steps.iter().enumerate() {
            if let Some((slot, noise)) = fresh_noise(step, &mut self.noise, &shape) {
                put(&mut slots, slot, &noise);
            }
            let given = self.given(index, step);
            let inputs: Vec<_> = by_name(&given).into_iter().chain([(SLOTS, &slots)]).collect();
            let next = self.stepper.run(kit, index, &inputs, NEXT).await?;
            carried(step).for_each(|(from, to)| put(&mut slots, to, &entry(&next, from)));
            self.evaluated(kit, index + 1)?;
        }
        Ok(entry(&slots, linear.last()))
    }

    /// What the network and the sampler's sums are given at a step next to the slots.
    fn given(&self, index: usize, step: &LinearStep) -> Vec<(String, Tensor)> {
        let mut input = vec![0.0; step.sum.len()];
        input[step.latents] = step.scale;
        let scales = self.guidance.chained().unwrap_or_default();
        let guidance: Vec<f32> = scales.iter().map(|scale| scale * step.guidance).collect();
        let step = [&guidance[..], &[step.output], &step.sum].concat();
        let factors = [(INPUT_FACTORS, input), (STEP_FACTORS, step)];
        let factors = factors.map(|(name, factors)| (name.to_string(), Tensor::new([factors.len()], factors)));
        self.stepper.given(index).into_iter().chain(factors).collect()
    }
}

/// A step's graph with a sampler's sums before and after it.
pub(super) fn sampling(mut graph: Graph, slots: usize, pictures: usize, texts: usize) -> Result<Graph> {
    let missing = |what: &str| Error::shape(format!("the network has no {what} {SAMPLE}"));
    let sample = graph.input_named(SAMPLE).ok_or_else(|| missing("input"))?;
    let found = graph.outputs.iter().find(|(name, _)| name == SAMPLE);
    let output = found.map(|(_, id)| *id).ok_or_else(|| missing("output"))?;
    let each = graph.shape(sample).with_batch(pictures);
    let shape = Shape::new([&[slots], each.dims()].concat());
    let factors = |count: usize| Ty::new(Kind::F32, [count]);
    let given = [(SLOTS, Ty::new(Kind::F32, shape)), (INPUT_FACTORS, factors(slots))];
    let slots_given = graph.compute_input(SAMPLE, "sampler.input", SamplerInput { texts }, &given)?[0];
    let step = SamplerStep { rows: texts };
    let step_factors = graph.input(STEP_FACTORS, Kind::F32, [step.factors(slots)]);
    let next = graph.node("sampler.step", step, &[output, slots_given, step_factors])?;
    graph.outputs = vec![(NEXT.to_string(), next)];
    Ok(graph)
}

/// Which entries of a step's output go into which slots.
fn carried(step: &LinearStep) -> impl Iterator<Item = (usize, usize)> {
    [(0, step.next)].into_iter().chain(step.keep.map(|to| (1, to)))
}

/// Every picture's own noise and its slot, of a step that draws any and uses it.
fn fresh_noise(step: &LinearStep, generators: &mut [Generator], shape: &Shape) -> Option<(usize, Tensor)> {
    let noise = step.draws.then(|| noise_of(generators, shape))?;
    step.noise.map(|slot| (slot, noise))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::unet;
    use crate::systems::cut::joined;

    #[test]
    fn what_is_joined_to_the_state_is_an_input_of_its_own_before_and_after_a_samplers_sums() {
        let unet = unet::Config::from_json(r#"{"in_channels": 7, "cross_attention_dim": 8}"#, "unet").unwrap();
        let joined = joined(unet.graph(6, 8, 8, 7).unwrap(), 3).unwrap();
        let shape = |graph: &Graph, name: &str| graph.input_named(name).map(|id| graph.shape(id).clone());
        assert_eq!(shape(&joined, SAMPLE), Some([6, 8, 8, 4].into()));
        let step = sampling(joined, 2, 2, 3).unwrap();
        assert_eq!((shape(&step, SAMPLE), shape(&step, SLOTS)), (None, Some([2, 2, 8, 8, 4].into())));
        assert_eq!(shape(&step, "beside"), Some([6, 8, 8, 3].into()));
    }
}
