//! A network cut by how often its inputs change: what depends on pictures or on texts alone (the keys and values of
//! cross-attention) runs once for a picture, what depends on the time (the embeddings of every block) once for all
//! steps, and the rest at every step. Other networks in its graph (ControlNets) are cut with it.

use super::guidance::Guidance;
use super::kept::Resident;
use super::kit::{Kit, Phase};
use super::part::Part;
use crate::conditioning::repeat_rows;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::ports::Changes;
use crate::network::{Network, Outputs};
use crate::ops::Ty;
use crate::ops::concat::Concat;
use crate::samplers::LinearSampler;
use crate::tensor::{Shape, Tensor};

/// The network's input and output that are the state.
pub(super) const SAMPLE: &str = "sample";
/// The input that [`joined`] makes.
pub(super) const BESIDE: &str = "beside";

/// The graph of a network whose input is the state and, in its last `channels`, what is the same at every step: that
/// becomes an input of its own, [`Given::beside`].
///
/// # Errors
/// If the network takes no state with more channels.
pub fn joined(mut graph: Graph, channels: usize) -> Result<Graph> {
    let missing = || Error::shape(format!("the network has no input {SAMPLE} of more than {channels} channels"));
    let whole = graph.input_named(SAMPLE).map(|id| graph.shape(id).clone()).ok_or_else(missing)?;
    let own = whole.channels().checked_sub(channels).filter(|own| *own > 0).ok_or_else(missing)?;
    let parts =
        [(SAMPLE, own), (BESIDE, channels)].map(|(name, channels)| (name, Ty::act(whole.with_channels(channels))));
    graph.compute_input(SAMPLE, BESIDE, Concat, &parts)?;
    Ok(graph)
}

/// The graphs of the parts: of pictures, of texts, of all steps' times, and of one step.
pub struct Cut {
    /// What messages and kept networks call the whole.
    pub name: &'static str,
    /// The folder of its weights.
    pub component: &'static str,
    /// What depends on pictures alone, for one row.
    pub picture: Graph,
    /// What depends on texts alone, for all versions of one picture's.
    pub text: Graph,
    /// What depends on the time, for all steps of one picture.
    pub time: Graph,
    /// The rest, for all rows of one step.
    pub step: Graph,
    /// All parameters of the whole.
    pub wanted: Vec<(String, Shape)>,
    /// How many pictures are made at once.
    pub pictures: usize,
    /// How often the step runs.
    pub steps: usize,
    /// For how many pictures the times' part runs: one, if they are given the same, or all.
    pub timed: usize,
    /// How many versions of the texts there are: more than one, if those change from step to step.
    pub versions: usize,
    /// How many rows a picture has (one for each text), and how those become one prediction.
    pub guidance: Guidance,
    /// The sampler's sums that `step` holds, where a device goes from step to step by itself.
    pub linear: Option<LinearSampler>,
}

/// What the parts are given; see [`Changes`].
#[derive(Default)]
pub struct Given {
    /// One row for all rows.
    pub picture: Vec<(String, Tensor)>,
    /// A row for each text, the first version's first.
    pub text: Vec<(&'static str, Tensor)>,
    /// The version of the texts at each step, where there are several.
    pub versions: Vec<usize>,
    /// What is [`joined`] to the state: a row for each text of each picture, the first text's of all pictures first.
    pub beside: Option<Tensor>,
    /// What that is multiplied with at each step; where there is nothing, it stays as it is.
    pub beside_scales: Vec<f32>,
    /// A row for each text at each step, the first step's first; for all [`Cut::timed`] pictures together.
    pub time: Vec<(&'static str, Tensor)>,
    /// Numbers that are the same in all rows: one for each step.
    pub step: Vec<(String, Vec<f32>)>,
}

impl Cut {
    /// Cuts the graph that `whole` gives for a number of rows, by what its inputs change with (one that is not listed
    /// changes at every step), for a number of pictures at once and of steps.
    ///
    /// # Errors
    /// If there is no such graph.
    pub fn of(
        [name, component]: [&'static str; 2],
        whole: &dyn Fn(usize) -> Result<Graph>,
        inputs: &[(String, Changes)],
        [pictures, steps]: [usize; 2],
        guidance: Guidance,
    ) -> Result<Self> {
        Self::timed([name, component], whole, inputs, [pictures, steps, 1, 1], guidance)
    }

    /// The same where what changes with the time differs between `timed` pictures, one or all, and the texts have
    /// `versions`.
    ///
    /// # Errors
    /// As [`Cut::of`].
    pub fn timed(
        [name, component]: [&'static str; 2],
        whole: &dyn Fn(usize) -> Result<Graph>,
        inputs: &[(String, Changes)],
        [pictures, steps, timed, versions]: [usize; 4],
        guidance: Guidance,
    ) -> Result<Self> {
        let texts = guidance.rows;
        let of = |changes| {
            let of = inputs.iter().filter(move |(_, with)| *with == changes);
            of.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
        };
        let [of_picture, of_text, of_time] = [Changes::Picture, Changes::Text, Changes::Time].map(of);
        let [picture, _] = whole(1)?.hoisted(&of_picture);
        let [text, _] = whole(texts * versions)?.hoisted(&of_text);
        let [time, _] = whole(steps * texts * timed)?.hoisted(&of_time);
        let whole = whole(pictures * texts)?;
        let [_, step] = whole.hoisted(&[of_text, of_time, of_picture].concat());
        Ok(Self {
            name,
            component,
            picture,
            text,
            time,
            step,
            wanted: whole.wanted(),
            pictures,
            steps,
            timed,
            versions,
            guidance,
            linear: None,
        })
    }

    /// The parts with anything to do, in the order in which they run.
    pub fn parts(self) -> Vec<Part> {
        self.into_parts().into_iter().filter(|part| !part.graph.nodes.is_empty()).collect()
    }

    fn into_parts(self) -> [Part; 4] {
        let Self { name, component, picture, text, time, step, wanted, steps, .. } = self;
        let part = |what: &str, graph, times| Part {
            what: if what.is_empty() { name.into() } else { format!("{name}'s part for {what}") },
            component: component.into(),
            graph,
            wanted: wanted.clone(),
            added: None,
            times,
        };
        [part("pictures", picture, 1), part("prompts", text, 1), part("times", time, 1), part("", step, steps)]
    }
}

/// The part of a network that runs at every step, with what the other parts gave it.
pub(super) struct Stepper {
    network: Resident,
    /// What depends on the time, with a row for every step and text.
    timed: Outputs,
    /// What depends on the texts, with a row for every version and text, where the network does not hold it.
    worded: Outputs,
    /// [`Given::versions`]
    versions: Vec<usize>,
    /// [`Given::step`]
    scales: Vec<(String, Vec<f32>)>,
    /// [`Given::beside`], where the network does not hold it, and [`Given::beside_scales`].
    beside: Option<(String, Tensor)>,
    beside_scales: Vec<f32>,
    pictures: usize,
    texts: usize,
    /// [`Cut::timed`]
    times: usize,
}

impl Stepper {
    /// Runs what is run once, and loads the rest. It sees what is joined to the state as a `whole`, or each time a
    /// part.
    ///
    /// # Errors
    /// If a part cannot be loaded or run.
    pub async fn load(kit: &mut Kit<'_>, cut: Cut, given: Given, whole: bool) -> Result<Self> {
        let (pictures, texts, times, versions) = (cut.pictures, cut.guidance.rows, cut.timed, cut.versions);
        let [picture, text, time, step] = cut.into_parts();
        let of_text = kit.once(text, &by_name(&given.text), "the prompt").await?;
        kit.mark(Phase::Denoise, "keys and values of the prompt");
        let (fixed, worded) = if versions == 1 { (of_text, Outputs::new()) } else { (Outputs::new(), of_text) };
        let each = |(name, tensor)| (name, repeat_rows(&tensor, pictures));
        let mut held: Outputs = fixed.into_iter().map(each).collect();

        let of_picture = kit.once(picture, &by_name(&given.picture), "the guiding picture").await?;
        if !given.picture.is_empty() {
            kit.mark(Phase::Denoise, "guiding pictures");
        }
        let all = |(name, tensor)| (name, repeat_rows(&tensor, texts * pictures));
        held.extend(of_picture.into_iter().map(all));

        let timed = kit.once(time, &by_name(&given.time), "the schedule").await?;
        kit.mark(Phase::Denoise, "embeddings of the times");

        let mut network = kit.load(kit.executor, step).await?;
        let beside = given.beside.map(|tensor| (BESIDE.to_string(), tensor));
        let beside_scales = given.beside_scales;
        let (fixed, beside) = if whole && beside_scales.is_empty() { (beside, None) } else { (None, beside) };
        held.extend(fixed);
        network.network.hold(held)?;
        let (versions, scales) = (given.versions, given.step);
        Ok(Self { network, timed, worded, versions, scales, beside, beside_scales, pictures, texts, times })
    }

    /// The output of that name at a step, for all inputs.
    ///
    /// # Errors
    /// If the device fails, or a value is not finite even in f32.
    pub async fn run(
        &mut self,
        kit: &mut Kit<'_>,
        step: usize,
        inputs: &[(&str, &Tensor)],
        output: &str,
    ) -> Result<Tensor> {
        let mut outputs = kit.pass(&mut self.network, inputs, &format!("step {}", step + 1)).await?;
        outputs.remove(output).ok_or_else(|| Error::shape(format!("the network has no output {output}")))
    }

    /// What the network is given at a step next to the state.
    pub fn given(&self, step: usize) -> Vec<(String, Tensor)> {
        let Self { pictures, texts, times, .. } = *self;
        // Cut when they are needed: all steps' rows for a large batch would be more than the state by far.
        let count = texts * times;
        let timed = self
            .timed
            .iter()
            .map(|(name, tensor)| (name.clone(), rows_of(tensor, step * count, count, pictures / times)));
        let first = self.versions.get(step).map_or(0, |version| version * texts);
        let worded = self.worded.iter().map(|(name, tensor)| (name.clone(), rows_of(tensor, first, texts, pictures)));
        let rows = texts * pictures;
        let scale =
            |(name, scales): &(String, Vec<f32>)| (name.clone(), Tensor::new([rows, 1], vec![scales[step]; rows]));
        let beside = self.beside.iter().map(|(name, beside)| {
            let scale = self.beside_scales.get(step).copied().unwrap_or(1.0);
            let data = beside.data.iter().map(|v| v * scale).collect();
            (name.clone(), Tensor::new(beside.shape.clone(), data))
        });
        timed.chain(worded).chain(self.scales.iter().map(scale)).chain(beside).collect()
    }

    /// The part that runs at every step.
    pub fn network(&self) -> &Network {
        &self.network.network
    }

    /// Lets go of the network, or keeps it for the next picture.
    pub fn release(self, kit: &mut Kit<'_>) {
        kit.release(self.network);
    }
}

/// Tensors as networks are given them.
pub(super) fn by_name<N: AsRef<str>>(tensors: &[(N, Tensor)]) -> Vec<(&str, &Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.as_ref(), tensor)).collect()
}

/// These rows of a tensor, each for every picture.
fn rows_of(tensor: &Tensor, first: usize, count: usize, pictures: usize) -> Tensor {
    let row = tensor.data.len() / tensor.shape.batch();
    let data = tensor.data[first * row..][..count * row].to_vec();
    repeat_rows(&Tensor::new(tensor.shape.with_batch(count), data), pictures)
}
