//! What tells the families of models apart, as data: each is one value beside the system that draws with it
//! (`systems::families`), handed down to [`Model`](super::Model). Nothing in `weights` knows a family by name.

use serde_json::Value;

use super::checkpoint::infer::Untold;
use super::checkpoint::keys::Layout;
use super::checkpoint::seen::Seen;

/// The families that files are recognised as.
pub struct Families {
    /// Asked in this order. The last is taken for a file that no tensor tells the family of.
    pub known: &'static [&'static Family],
    /// Models of others.
    pub others: &'static [Foreign],
    /// What tells whose models a LoRA file was made for, where its names do.
    pub loras: &'static [LoraMarks],
}

/// LoRA files of families that are alike.
pub struct LoraMarks {
    /// Parts that only their names of modules have, with underscores for dots.
    pub parts: &'static [&'static str],
    /// Whose they are, for people.
    pub title: &'static str,
    /// The names of the families.
    pub families: &'static [&'static str],
}

/// Parts of names that only files of one kind have, and what such a file is, as an error says it.
pub type Foreign = (&'static [&'static str], &'static str);

/// Models whose networks are alike: what tells them by their tensors, and what no tensor of theirs tells.
pub struct Family {
    /// In `weights-manifest.toml`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Whether a network is of this family and none before it. Those that all families have alike, as autoencoders,
    /// are of none.
    pub recognises: fn(&Seen) -> bool,
    /// Why a UNet that is of this family is refused nevertheless.
    pub refuses: fn(&Seen) -> Option<&'static str>,
    /// What no tensor of its networks tells.
    pub untold: Untold,
    /// Its networks.
    pub components: &'static [Component],
    /// How names begin of what its files hold next to its networks, knowingly left out.
    pub leftovers: &'static [&'static str],
    /// What the ModelSpec standard calls its models (the beginning), and what those predict.
    pub architectures: &'static [(&'static str, Kind)],
    /// What a UNet predicts whose file does not say so, and how that is known. The number is of the steps that it was
    /// trained for, where the file tells.
    pub prediction: fn(&Seen, Option<f32>) -> (Kind, String),
    /// The height and width of the latents that it was trained on, where the file does not say so.
    pub side: fn(&Prediction) -> usize,
    /// The files of a folder that are of no network, by path: its index, its schedule.
    pub files: fn(&Prediction) -> Vec<(&'static str, Value)>,
}

/// A network of a family: where it is in files, and which files a folder would have for it.
#[derive(Clone, Copy)]
pub struct Component {
    /// The folder of its configuration and weights.
    pub name: &'static str,
    /// Whether it is the network that makes the picture.
    pub denoises: bool,
    /// How names begin that belong to it, in files with several networks, and how it is written there.
    pub parts: &'static [(&'static str, Layout)],
    /// Tensors of files that hold it alone, each of which tells that, and how it is written there.
    pub alone: &'static [(&'static str, Layout)],
    /// How the names of its modules begin in LoRA files: with dots between their parts, and with underscores.
    pub lora: [&'static [&'static str]; 2],
    /// How names begin of what it holds and nothing reads.
    pub unread: fn(&Seen, &Untold) -> Vec<&'static str>,
    /// Its `config.json`. That of one that denoises lacks `sample_size`.
    pub config: fn(&Seen, &Untold) -> Value,
    /// Other files that follow from it, by path.
    pub others: fn(&Seen, &Untold) -> Vec<(&'static str, Value)>,
}

/// The component that a ControlNet is.
pub const CONTROLNET: &str = "controlnet";

/// What a UNet's output is, as `scheduler_config.json` calls it.
pub type Kind = &'static str;

/// The noise.
pub const EPSILON: Kind = "epsilon";
/// The noise and the picture, turned by the angle of the noise level (Salimans and Ho 2022).
pub const VELOCITY: Kind = "v_prediction";
/// The picture.
pub const SAMPLE: Kind = "sample";

/// What the UNet of a checkpoint predicts.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// What its output is.
    pub kind: Kind,
    /// Whether the noise schedule ends in pure noise.
    pub zero_snr: bool,
    /// How this is known, for a user who doubts it.
    pub because: String,
}

impl Families {
    /// The family of a network, if it tells one.
    pub fn of(&self, network: &Seen) -> Option<&'static Family> {
        self.known.iter().copied().find(|family| (family.recognises)(network))
    }

    /// Whose models a LoRA file with these names of modules was made for, if they tell.
    pub fn of_lora<'a>(&self, modules: impl Iterator<Item = &'a str>) -> Option<&'static LoraMarks> {
        let modules: Vec<String> = modules.map(|module| module.replace('.', "_")).collect();
        let has = |part: &&str| modules.iter().any(|module| module.contains(part));
        self.loras.iter().find(|marks| marks.parts.iter().any(has))
    }

    /// Whether a name is of what files of one of the families hold next to their networks.
    pub fn is_leftover(&self, name: &str) -> bool {
        self.known.iter().any(|family| family.leftovers.iter().any(|start| name.starts_with(start)))
    }

    /// The networks of every family; one that several have is there for each.
    pub fn components(&self) -> impl Iterator<Item = &'static Component> {
        self.known.iter().flat_map(|family| family.components)
    }
}
