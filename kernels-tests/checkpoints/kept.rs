//! Checkpoints in the original key layout, made again from what `data/make_single_file.py` kept of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use libtest_mimic::Failed;
use ornstein::tensor::{DType, RawTensor, Shape, Tensor, Weights};
use ornstein::weights::vocabulary::{merges, vocabulary};
use ornstein::weights::{Model, Synthetic, read_tensors, write_tensors};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde_json::Value;

pub type Tensors = BTreeMap<String, Tensor>;

/// A family's file: `data/single/FAMILY.json.gz`.
#[derive(Deserialize)]
pub struct Kept {
    /// For each tensor the component, its tensors' names in the diffusers pipeline, how they lie in it, and its shape.
    tensors: BTreeMap<String, Stored>,
    pub configs: BTreeMap<String, Value>,
    pub metadata: HashMap<String, String>,
}

type Stored = (String, Vec<String>, Lie, Vec<usize>);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Lie {
    Whole,
    Thirds,
    Transposed,
}

impl Lie {
    /// The shape of each of the pipeline's tensors that lie in one of this shape.
    fn part(&self, shape: &[usize]) -> Vec<usize> {
        match self {
            Self::Whole => shape.to_vec(),
            Self::Thirds => [&[shape[0] / 3], &shape[1..]].concat(),
            Self::Transposed => vec![shape[1], shape[0]],
        }
    }
}

fn data(file: String) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/single").join(file)
}

/// Inputs and outputs of every network: `unet.in.sample`.
pub fn reference(family: &str) -> Result<Tensors, Failed> {
    let tensors = read_tensors(&data(format!("{family}.safetensors")))?;
    Ok(tensors.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

impl Kept {
    pub fn of(family: &str) -> Result<Self, Failed> {
        let file = std::fs::File::open(data(format!("{family}.json.gz")))?;
        Ok(serde_json::from_reader(flate2::read::GzDecoder::new(file))?)
    }

    /// The file's tensors.
    pub fn tensors(&self) -> Tensors {
        let tensor = |(key, (component, names, lie, shape)): (&String, &Stored)| {
            let part = lie.part(shape);
            let mut data: Vec<f32> = names.iter().flat_map(|name| values(component, name, &part)).collect();
            if let Lie::Transposed = lie {
                let (rows, columns) = (part[0], part[1]);
                data = (0..data.len()).map(|i| data[i % rows * columns + i / rows]).collect();
            }
            (key.clone(), Tensor::new(Shape::new(shape.clone()), data))
        };
        self.tensors.iter().map(tensor).collect()
    }

    /// The same with a UNet that takes this many channels.
    pub fn with_unet_inputs(mut self, channels: usize) -> Self {
        self.configs.entry("unet".into()).and_modify(|config| config["in_channels"] = channels.into());
        let first = |names: &[String]| names.iter().any(|name| name == "conv_in.weight");
        let stored = self.tensors.values_mut().find(|(component, names, ..)| component == "unet" && first(names));
        stored.into_iter().for_each(|(.., shape)| shape[1] = channels);
        self
    }

    /// The pipeline's tensors of a component, by their names there.
    pub fn component(&self, component: &str) -> Tensors {
        let mut tensors = Tensors::new();
        for (_, names, lie, shape) in self.tensors.values().filter(|(of, ..)| of == component) {
            let part = lie.part(shape);
            tensors.extend(
                names
                    .iter()
                    .map(|name| (name.clone(), Tensor::new(Shape::new(part.clone()), values(component, name, &part)))),
            );
        }
        tensors
    }

    /// The same weights and configurations as a diffusers folder.
    pub fn write_folder(&self, folder: &Path) -> Result<Model, Failed> {
        let components: BTreeSet<_> = self.tensors.values().map(|(component, ..)| component).collect();
        for component in components {
            let tensors = self.component(component);
            std::fs::create_dir_all(folder.join(component))?;
            let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            write_tensors(&folder.join(component).join("model.safetensors"), &tensors)?;
        }
        for (component, config) in &self.configs {
            let file = if component.ends_with("scheduler") { "scheduler_config.json" } else { "config.json" };
            std::fs::create_dir_all(folder.join(component))?;
            std::fs::write(folder.join(component).join(file), config.to_string())?;
            if let Some(suffix) = component.strip_prefix("text_encoder") {
                let tokenizer = folder.join(format!("tokenizer{suffix}"));
                std::fs::create_dir(&tokenizer)?;
                std::fs::write(tokenizer.join("vocab.json"), vocabulary())?;
                std::fs::write(tokenizer.join("merges.txt"), merges())?;
                let pad = if config["hidden_act"] == "gelu" { "!" } else { "<|endoftext|>" };
                let config = serde_json::json!({"pad_token": pad, "model_max_length": 77});
                std::fs::write(tokenizer.join("tokenizer_config.json"), config.to_string())?;
            }
        }
        std::fs::write(folder.join("model_index.json"), r#"{"force_zeros_for_empty_prompt": true}"#)?;
        Ok(Model::open(folder)?)
    }
}

/// What the script's `synthetic` gives: values that every storage type holds exactly.
pub fn values(component: &str, name: &str, shape: &[usize]) -> Vec<f32> {
    let name = format!("{component}.{name}");
    let weights = Synthetic::new("synthetic", [(name.clone(), Shape::new(shape))]);
    let tensor = weights.get(&name).expect("it was asked for");
    tensor.to_f32().into_iter().map(|value| bf16::from_f32(value).to_f32()).collect()
}

/// Writes a checkpoint whose elements are of this type.
pub fn write(path: &Path, tensors: &Tensors, dtype: DType, metadata: &HashMap<String, String>) -> Result<(), Failed> {
    let (kind, put): (Dtype, fn(&mut Vec<u8>, f32)) = match dtype {
        DType::F32 => (Dtype::F32, |bytes, v| bytes.extend(v.to_le_bytes())),
        DType::F16 => (Dtype::F16, |bytes, v| bytes.extend(f16::from_f32(v).to_le_bytes())),
        DType::BF16 => (Dtype::BF16, |bytes, v| bytes.extend(bf16::from_f32(v).to_le_bytes())),
        DType::F8E4M3 => (Dtype::F8_E4M3, |bytes, v| bytes.push(eight_bits(DType::F8E4M3, v))),
        DType::F8E5M2 => (Dtype::F8_E5M2, |bytes, v| bytes.push(eight_bits(DType::F8E5M2, v))),
        DType::I32 | DType::I64 => return Err("weights are not integers".into()),
    };
    let bytes = |tensor: &Tensor| {
        let mut bytes = Vec::with_capacity(tensor.data.len() * dtype.size());
        tensor.data.iter().for_each(|value| put(&mut bytes, *value));
        bytes
    };
    let data: Vec<Vec<u8>> = tensors.values().map(bytes).collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, tensor), data)| Ok((name, TensorView::new(kind, tensor.shape.dims().to_vec(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(std::fs::write(path, safetensors::serialize(views, Some(metadata.clone()))?)?)
}

/// The first eight bits of a value in one of these types.
fn eight_bits(dtype: DType, value: f32) -> u8 {
    if dtype == DType::F8E5M2 {
        return (f16::from_f32(value).to_bits() >> 8) as u8;
    }
    // The exponent counts from 7 instead of 127, and the largest number is 448.
    let magnitude = (value.abs().min(448.0) * f32::from_bits((127 - 120) << 23)).to_bits() >> 20;
    magnitude as u8 | u8::from(value.is_sign_negative()) << 7
}

/// What is left of a value in eight bits.
pub fn in_eight_bits(dtype: DType, value: f32) -> f32 {
    let bytes = vec![eight_bits(dtype, value)].into();
    RawTensor { dtype, shape: [1].into(), bytes }.to_f32()[0]
}
