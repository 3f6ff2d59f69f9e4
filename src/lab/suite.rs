//! What to time: every distinct node of the real networks, at the sizes that pictures are made with.
//!
//! A network's configuration is the one of its published `config.json`, as far as it differs from diffusers' and
//! transformers' defaults. Text encoders and UNets run at a batch of two, as guidance runs them, VAEs at one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::config::{DECODER, ENCODER};
use crate::models::ports::Sizes;
use crate::models::table;
use crate::ops::case::Fill;
use crate::ops::{Case, Kind, Op, Row, TABLE, Ty};
use crate::rng::Generator;
use crate::tensor::Tensor;

const CLIP_L: &str = r#"{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}"#;
const OPEN_CLIP_H: &str = r#"{"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 23, "hidden_act": "gelu"}"#;
const OPEN_CLIP_BIG_G: &str = r#"{"architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280,
    "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "hidden_act": "gelu",
    "projection_dim": 1280}"#;
pub(crate) const VAE: &str = r#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;

/// Published models of one size.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// What the command line calls it.
    pub name: &'static str,
    /// Height and width of the latents that they were trained on.
    pub latent: usize,
    /// Folders and configurations of the networks that make a picture.
    parts: &'static [(&'static str, &'static str)],
}

/// Stable Diffusion 1.5.
pub static SD15: Published = Published {
    name: "sd15",
    latent: 64,
    parts: &[("text_encoder", CLIP_L), ("unet", r#"{"cross_attention_dim": 768}"#), ("vae", VAE)],
};

/// Stable Diffusion 2.1, at 768 x 768.
pub static SD21: Published = Published {
    name: "sd21",
    latent: 96,
    parts: &[
        ("text_encoder", OPEN_CLIP_H),
        (
            "unet",
            r#"{"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": true}"#,
        ),
        ("vae", VAE),
    ],
};

/// InstructPix2Pix.
pub static PIX2PIX: Published = Published {
    name: "pix2pix",
    latent: 64,
    parts: &[("text_encoder", CLIP_L), ("unet", r#"{"cross_attention_dim": 768, "in_channels": 8}"#), ("vae", VAE)],
};

/// The x4 upscaler, of pictures of 128 x 128.
pub static X4: Published = Published {
    name: "x4",
    latent: 128,
    parts: &[
        ("text_encoder", OPEN_CLIP_H),
        (
            "unet",
            r#"{"block_out_channels": [256, 512, 512, 1024], "cross_attention_dim": 1024, "in_channels": 7,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                                     "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "num_class_embeds": 1000, "only_cross_attention": [true, true, true, false],
                "use_linear_projection": true}"#,
        ),
        (
            "vae",
            r#"{"block_out_channels": [128, 256, 512], "layers_per_block": 2, "scaling_factor": 0.08333,
                "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
                "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#,
        ),
    ],
};

/// SDXL base 1.0.
pub static SDXL: Published = Published {
    name: "sdxl",
    latent: 128,
    parts: &[
        ("text_encoder", CLIP_L),
        ("text_encoder_2", OPEN_CLIP_BIG_G),
        (
            "unet",
            r#"{"block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "transformer_layers_per_block": [1, 2, 10], "cross_attention_dim": 2048,
                "use_linear_projection": true, "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}"#,
        ),
        ("vae", VAE),
    ],
};

/// A published family of models, whose shapes are timed without its weights.
pub static PUBLISHED: [&Published; 5] = [&SD15, &SD21, &SDXL, &PIX2PIX, &X4];

/// The published models of that name.
pub fn published(name: &str) -> Option<&'static Published> {
    PUBLISHED.into_iter().find(|published| published.name == name)
}

impl Published {
    /// The networks that make a picture, fused as they run, for latents of `latent` x `latent` and `batch` rows.
    ///
    /// # Errors
    /// If there is no such size: 0.
    pub fn networks(&self, latent: usize, batch: usize) -> Result<Vec<Graph>> {
        let sizes = Sizes { batch, height: latent, width: latent, tokens: 77 };
        let mut graphs = Vec::new();
        for (folder, config) in self.parts {
            let built = table::open(folder, config, self.name)?;
            let config = built.ok_or_else(|| Error::config(self.name, format!("{folder} is of no class")))?;
            for way in config.ways().iter().filter(|way| **way != ENCODER) {
                graphs.push(config.graph(folder, way, &rows(way, sizes))?.fused());
            }
        }
        Ok(graphs)
    }
}

/// Decoders run at one picture, whose activations are the largest of all.
pub(super) fn rows(way: &str, sizes: Sizes) -> Sizes {
    if way == DECODER { Sizes { batch: 1, ..sizes } } else { sizes }
}

/// An op at one set of shapes, and where it runs so.
#[derive(Debug)]
pub struct Workload {
    /// The op at these shapes.
    pub case: Case,
    /// `sd15 unet` -> how many nodes.
    pub uses: BTreeMap<String, usize>,
}

impl Workload {
    /// A case that no network stands for.
    pub fn of(case: Case) -> Self {
        Self { case, uses: BTreeMap::new() }
    }

    /// Floating-point operations of one run.
    ///
    /// # Errors
    /// If the case contradicts its op's shape rule.
    pub fn flops(&self) -> Result<u64> {
        let types = self.case.types();
        Ok(self.case.op.flops(&types, &self.case.op.output(&types)?))
    }
}

/// The cases of the ops' own tables.
pub fn cases() -> Vec<Workload> {
    TABLE.iter().flat_map(Row::cases).map(Workload::of).collect()
}

/// The distinct nodes of a family's networks at its own size.
///
/// # Errors
/// If one of the configurations above is wrong.
pub fn nodes(family: &Published) -> Result<Vec<Workload>> {
    let mut workloads: Vec<Workload> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for graph in family.networks(family.latent, 2)? {
        for node in &graph.nodes {
            let case = filled(Arc::clone(&node.op), graph.types(&node.inputs));
            let place = *known.entry(case.name()).or_insert(workloads.len());
            if place == workloads.len() {
                workloads.push(Workload::of(case));
            }
            *workloads[place].uses.entry(format!("{} {}", family.name, graph.network)).or_default() += 1;
        }
    }
    Ok(workloads)
}

/// A node as a case: filled as the op's own cases with such inputs are, since statistics and timesteps are not normal.
/// Indices are those of rows of the next input.
fn filled(op: Arc<dyn Op>, types: Vec<Ty>) -> Case {
    let cases = TABLE.iter().find(|row| row.name == op.name()).map(Row::cases).unwrap_or_default();
    let same_kinds = |case: &&Case| case.types().iter().map(|ty| ty.kind).eq(types.iter().map(|ty| ty.kind));
    let like = cases.iter().find(same_kinds);
    let mut case = Case::of(op, types);
    for (index, (_, fill)) in like.iter().flat_map(|like| &like.inputs).enumerate() {
        case = match (case.inputs[index].0.kind, *fill) {
            (Kind::U32, _) => {
                let entries = case.inputs.get(index + 1).map_or(1, |(ty, _)| ty.shape.rows());
                case.fill(index, Fill::Below(entries as u32))
            }
            (_, Fill::Normal(_)) => case,
            (_, fill) => case.fill(index, fill),
        };
    }
    case
}

/// A network's inputs for timing: normal activations, small whole numbers where indices or timesteps are wanted.
pub fn inputs(graph: &Graph) -> Vec<(String, Tensor)> {
    let mut generator = Generator::new(1);
    let mut tensor = |Ty { kind, shape }: &Ty| {
        let data = match kind {
            Kind::U32 => (0..shape.len()).map(|i| i as f32).collect(),
            Kind::Bytes => (0..shape.len()).map(|i| (i % 256) as f32).collect(),
            Kind::F32 => vec![500.0; shape.len()],
            Kind::Act | Kind::Weight => generator.normal(shape.len()),
        };
        Tensor::new(shape.clone(), data)
    };
    graph.inputs().map(|(name, id)| (name.to_string(), tensor(graph.ty(id)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flops(family: &Published, latent: usize, network: &str) -> f64 {
        let graphs = family.networks(latent, 1).unwrap();
        graphs.iter().find(|graph| graph.network == network).unwrap().flops() as f64
    }

    /// Counts published with the models' profiles: 401.6, 402.1 and 3380.6 GMAC, a decoder's 1257.3.
    #[test]
    fn the_networks_do_the_arithmetic_of_the_published_models() {
        for (family, latent, network, gmac) in [
            (&SD15, 64, "unet", 401.6),
            (&SD21, 64, "unet", 402.1),
            (&SDXL, 128, "unet", 3380.6),
            (&SD15, 64, "vae", 1257.3),
            (&SD15, 64, "text_encoder", 6.65),
        ] {
            let found = flops(family, latent, network) / 2e9;
            assert!((found / gmac - 1.0).abs() < 0.02, "{} {network}: {found} GMAC", family.name);
        }
    }

    #[test]
    fn the_parameters_are_those_of_the_published_models() {
        for (family, network, millions) in [
            (&SD15, "unet", 859.52),
            (&SD21, "unet", 865.91),
            (&SDXL, "unet", 2567.46),
            (&SDXL, "text_encoder_2", 694.66),
            (&SD15, "vae", 49.49),
            (&PIX2PIX, "unet", 859.53),
            (&X4, "unet", 473.40),
            (&X4, "vae", 32.97),
        ] {
            let graphs = family.networks(8, 1).unwrap();
            let graph = graphs.iter().find(|graph| graph.network == network).unwrap();
            let found = graph.wanted().iter().map(|(_, shape)| shape.len()).sum::<usize>() as f64 / 1e6;
            assert!((found - millions).abs() < 0.01, "{} {network}: {found} M", family.name);
        }
    }

    /// What fusion leaves of a step, and that no node is left of what it should take in.
    #[test]
    fn the_unet_of_stable_diffusion_1_5_runs_as_393_nodes() {
        let graphs = SD15.networks(64, 2).unwrap();
        let unet = graphs.iter().find(|graph| graph.network == "unet").unwrap();
        assert_eq!(unet.nodes.len(), 393);
        let left = ["activation", "add", "add_row", "concat", "geglu", "upsample"];
        for graph in &graphs {
            let alone = graph.nodes.iter().find(|node| left.contains(&node.op.name()));
            assert!(alone.is_none(), "{alone:?}");
        }
    }

    #[test]
    fn a_suite_has_every_node_once_with_its_count() {
        let workloads = nodes(&SD15).unwrap();
        let nodes: usize = SD15.networks(64, 2).unwrap().iter().map(|graph| graph.nodes.len()).sum();
        assert_eq!(workloads.iter().flat_map(|workload| workload.uses.values()).sum::<usize>(), nodes);
        assert!(workloads.len() < nodes / 3, "{} of {nodes}", workloads.len());
    }

    #[test]
    fn indices_stay_inside_their_table() {
        let workloads = nodes(&SD15).unwrap();
        let embedding = workloads.iter().find(|workload| workload.case.op.name() == "embedding").unwrap();
        assert!(matches!(embedding.case.inputs[0].1, Fill::Below(49_408)));
    }
}
