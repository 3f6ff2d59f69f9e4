//! A model opened for making pictures.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use web_time::Instant;

use super::canvas::stretched;
use super::kept::Kept;
use super::kit::{Caller, Kit};
use super::made::{Keep, Pictures, Tell};
use super::part::{Models, Part, REFINERS};
use super::request::Request;
use super::settings::{Settings, check};
use super::stable_diffusion::variant::REFINER;
use super::{Row, System, find};
use crate::conditioning::Syntax;
use crate::error::{Field, Message, Remedy, Result, ten};
use crate::network::Executor;
use crate::prompt::schedule;
use crate::weights::{Changes, Model};

/// A model opened with its system: its configurations read and understood.
pub struct Studio {
    models: Models,
    row: &'static Row,
    system: Box<dyn System>,
    /// What is to be said when it draws.
    warnings: Vec<Message>,
    /// All that was said of the model, of prompts and of words in them: each once.
    said: Mutex<BTreeSet<String>>,
}

impl Studio {
    /// # Errors
    /// If a file of the model is missing or asks for something that is not built.
    pub fn open(model: Model) -> Result<Self> {
        Self::of(Models::of(model))
    }

    fn of(models: Models) -> Result<Self> {
        let (row, warning) = find(&models.model);
        let system = (row.open)(&models)?;
        let refiner = models.refiner.as_deref().and_then(|refiner| other_refiner(&refiner.model));
        let warnings = warning.map(Message::from).into_iter().chain(refiner).collect();
        Ok(Self { models, row, system, warnings, said: Mutex::default() })
    }

    /// The same guided by these ControlNets, whose residuals add up.
    ///
    /// # Errors
    /// If one is not a ControlNet, asks for something that is not built, or is for another UNet.
    pub fn with_controls(self, controls: Vec<Model>) -> Result<Self> {
        Self::of(Models { controls, ..self.models })
    }

    /// The same with another model that finishes the pictures in the same latents.
    ///
    /// # Errors
    /// If the system does not take one, a file of it is missing or asks for something that is not built, or its
    /// latents are not the model's.
    pub fn with_refiner(self, model: Model) -> Result<Self> {
        self.row.check_field(Field::Refiner)?;
        let refiner = Some(Box::new(Models { role: REFINERS, ..Models::of(model) }));
        Self::of(Models { refiner, ..self.models })
    }

    /// The model itself.
    pub fn model(&self) -> &Model {
        &self.models.model
    }

    /// The row of its system.
    pub fn row(&self) -> &'static Row {
        self.row
    }

    /// Fills in the defaults: the model's own, then its system's.
    ///
    /// # Errors
    /// If the request makes no sense for this model.
    pub fn settings(&self, request: &Request) -> Result<Settings> {
        self.row.check(request)?;
        let settings = self.system.settings(&self.models, request)?;
        check(request, &settings, self.models.controls.len())?;
        Ok(settings)
    }

    /// Every network that drawing would load, in that order.
    ///
    /// # Errors
    /// If the request makes no sense for this model, or its prompt cannot be tokenized.
    pub fn parts(&self, executor: &Executor, request: &Request) -> Result<Vec<Part>> {
        self.system.parts(&self.models, executor, request, &self.settings(request)?)
    }

    /// What the request's LoRA files change in this model.
    ///
    /// # Errors
    /// As [`Changes::of`].
    pub fn changes(&self, request: &Request) -> Result<Changes> {
        Changes::of(&self.models.model, &request.loras)
    }

    /// The same model on an executor, where its networks stay from one picture to the next.
    pub fn load<'a>(&'a self, executor: &'a Executor) -> Loaded<'a> {
        Loaded { studio: self, executor, kept: Kept::default() }
    }

    /// Makes the pictures, with the networks loaded one after the other, each gone before the next. `cancel` is
    /// checked between submissions.
    ///
    /// # Errors
    /// If the request, the weights or the device do not allow it, or a node's output is not finite even in f32.
    pub async fn generate(
        &self,
        executor: &Executor,
        request: &Request,
        cancel: &AtomicBool,
        tell: &mut Tell<'_>,
    ) -> Result<Pictures> {
        self.generate_each(executor, request, cancel, tell, &mut |_| Ok(())).await
    }

    /// The same, which hands out the latents and each picture as soon as they are made.
    ///
    /// # Errors
    /// As there, and those of `keep`, after which nothing more is made.
    pub async fn generate_each(
        &self,
        executor: &Executor,
        request: &Request,
        cancel: &AtomicBool,
        tell: &mut Tell<'_>,
        keep: &mut Keep<'_>,
    ) -> Result<Pictures> {
        self.make(executor, None, request, Caller { cancel, tell, keep }).await
    }

    /// What is to be said of words that a model of few does not know: unless files add others, and each word once.
    fn foreign(&self, request: &Request) -> Option<Message> {
        let entry = self.models.model.entry()?;
        if !request.loras.is_empty() || !request.conditioning.embeddings.is_empty() {
            return None;
        }
        let texts = [Some(&request.prompt), request.negative.as_ref()].into_iter().flatten();
        let mut words = entry.unknown_words(texts.map(String::as_str));
        let mut said = self.said.lock().ok()?;
        words.retain(|word| said.insert(format!("the word {word}")));
        if words.is_empty() {
            return None;
        }
        let what = format!("{} does not know {}; it draws {}", entry.name, ten(&words), entry.knows.as_ref()?);
        Some(Message::from(what).remedies([Remedy::Other(Field::Model)]))
    }

    async fn make(
        &self,
        executor: &Executor,
        kept: Option<&mut Kept>,
        request: &Request,
        caller: Caller<'_, '_>,
    ) -> Result<Pictures> {
        let begun = Instant::now();
        let settings = self.settings(request)?;
        let mut kit = Kit::new(begun, &self.models, executor, (request, &settings), kept, caller)?;
        let warnings = [self.foreign(request), unread(request)].into_iter().flatten();
        let warnings = warnings.chain(stretched(request, &settings));
        for warning in self.warnings.iter().cloned().chain(warnings) {
            if self.said.lock().is_ok_and(|mut said| said.insert(warning.to_string())) {
                kit.warn(warning);
            }
        }
        self.system.draw(&mut kit).await?;
        Ok(kit.done())
    }
}

/// What is to be said of a refiner that is not one: a model that can finish pictures, and was not taught to.
fn other_refiner(model: &Model) -> Option<Message> {
    let class = find(model).0.classes[0];
    let what = format!("{} is not SDXL's refiner: it finishes the picture as a {class}", model.name());
    (class != REFINER.class).then(|| Message::from(what).of(Field::Refiner))
}

/// What is to be said of a prompt that is written for more than is read of it.
fn unread(request: &Request) -> Option<Message> {
    let texts = [Some(&request.prompt), request.negative.as_ref()].into_iter().flatten();
    let found: BTreeSet<_> = texts.flat_map(|text| schedule::unread(text)).collect();
    let is_weighted = request.conditioning.syntax == Syntax::Weighted && !found.is_empty();
    let found = || found.iter().copied().collect::<Vec<_>>().join(", ");
    is_weighted.then(|| format!("the prompt has {}, which is read as text", found()).into())
}

/// A model that keeps its networks in memory, all of them at once. A picture of another size than the last, or with
/// another number of texts, loads again what depends on that.
pub struct Loaded<'a> {
    studio: &'a Studio,
    executor: &'a Executor,
    kept: Kept,
}

impl Loaded<'_> {
    /// [`Studio::generate`] with the networks of the last call.
    ///
    /// # Errors
    /// As there.
    pub async fn generate(&mut self, request: &Request, cancel: &AtomicBool, tell: &mut Tell<'_>) -> Result<Pictures> {
        self.generate_each(request, cancel, tell, &mut |_| Ok(())).await
    }

    /// [`Studio::generate_each`] with the networks of the last call.
    ///
    /// # Errors
    /// As there.
    pub async fn generate_each(
        &mut self,
        request: &Request,
        cancel: &AtomicBool,
        tell: &mut Tell<'_>,
        keep: &mut Keep<'_>,
    ) -> Result<Pictures> {
        self.studio.make(self.executor, Some(&mut self.kept), request, Caller { cancel, tell, keep }).await
    }
}
