//! A LoRA file: its tensors by the module that they change, and what its changes are multiplied with.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use super::roles::{Role, split};
use crate::error::{Error, Result, ten};
use crate::tensor::Tensor;
use crate::weights::file::TensorFile;

/// The metadata entry in which diffusers keeps PEFT's configurations, and what it tells of one network.
const CONFIG: &str = "lora_adapter_metadata";

/// The stored names of a module's parts.
pub(super) type Parts = BTreeMap<Role, String>;

/// What parts that are not a whole change are called.
pub(super) fn incomplete(parts: &Parts) -> String {
    format!("only {}", ten(&parts.values().collect::<Vec<_>>()))
}

/// A file of changes to a model's weights: LoRA, LoHa, LoKr, OFT, BOFT or whole, the first three with or without DoRA.
pub struct LoraFile {
    pub(super) tensors: TensorFile,
    /// By the module's name as the file has it.
    pub(super) modules: BTreeMap<String, Parts>,
    config: Map<String, Value>,
    /// By word: what the vectors are for, and what their tensor is called.
    bundled: BTreeMap<String, Vec<(String, String)>>,
}

/// How names begin of words that come with the file: `bundle_emb.WORD.clip_l`.
const BUNDLED: &str = "bundle_emb.";

impl fmt::Debug for LoraFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoraFile").field(&self.path()).finish()
    }
}

impl LoraFile {
    /// Reads the file's header, and sorts its tensors.
    ///
    /// # Errors
    /// A file that cannot be read (pickles are refused), is not a LoRA, or has tensors that are not part of one.
    pub fn open(path: &Path) -> Result<Self> {
        let tensors = TensorFile::open(path)?;
        let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
        let mut unknown = Vec::new();
        let mut bundled: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for name in tensors.names() {
            if let Some((word, key)) = name.strip_prefix(BUNDLED).and_then(|rest| rest.split_once('.')) {
                bundled.entry(word.into()).or_default().push((key.into(), name.into()));
                continue;
            }
            match split(name) {
                Some((module, part)) => {
                    let twice = modules.entry(module.into()).or_default().insert(part, name.into());
                    if let Some(first) = twice {
                        return Err(Error::file(path, format!("has one part of a module twice: {first} and {name}")));
                    }
                }
                None => unknown.push(name),
            }
        }
        if modules.is_empty() {
            let has = if unknown.is_empty() { "no tensors".into() } else { ten(&unknown) };
            return Err(Error::file(path, format!("is not a LoRA: it has {has}")));
        }
        if !unknown.is_empty() {
            let what = format!(
                "has tensors that are not part of a LoRA, LoHa, LoKr, OFT, BOFT or DoRA, and not a change itself: {}",
                ten(&unknown)
            );
            return Err(Error::file(path, format!("{what}; they cannot be left out")));
        }
        let config = tensors.metadata(CONFIG).map_or_else(|| Ok(Map::new()), serde_json::from_str);
        let fail = |error| Error::file(path, format!("its metadata {CONFIG} cannot be understood: {error}"));
        let config = config.map_err(fail)?;
        Ok(Self { tensors, modules, config, bundled })
    }

    /// The words that come with the file, and each one's tensors by what they are for.
    pub fn bundled(&self) -> impl Iterator<Item = (&str, Vec<(String, Tensor)>)> {
        let tensor = |(key, name): &(String, String)| {
            let raw = self.tensors.get(name)?;
            Some((key.clone(), Tensor::new(raw.shape.clone(), raw.to_f32())))
        };
        self.bundled.iter().map(move |(word, tensors)| (word.as_str(), tensors.iter().filter_map(tensor).collect()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.tensors.path()
    }

    /// What prompts call it: the file's name without its ending.
    pub fn name(&self) -> String {
        self.path().file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What the change of a tensor of a component is multiplied with: alpha over the rank, or over its root (rsLoRA);
    /// 1 where the file tells no alpha, or the change has no rank.
    ///
    /// # Errors
    /// Why the alpha cannot be used.
    pub(super) fn scale(&self, parts: &Parts, target: (&str, &str), rank: Option<usize>) -> Result<f32, String> {
        let (component, tensor) = target;
        let Some(rank) = rank.map(|rank| rank as f64) else { return Ok(1.0) };
        let (alpha, root) = match parts.get(&Role::Alpha) {
            Some(name) => (self.one_value(name)?, false),
            None => match self.configured_alpha(component, tensor)? {
                Some(alpha) => (alpha, self.entry(component, "use_rslora").and_then(Value::as_bool) == Some(true)),
                None => return Ok(1.0),
            },
        };
        Ok((alpha / if root { rank.sqrt() } else { rank }) as f32)
    }

    /// The one value of a tensor.
    ///
    /// # Errors
    /// If it has several, or one that is not a number.
    pub(super) fn one_value(&self, name: &str) -> Result<f64, String> {
        let values = self.tensors.get(name).map(|tensor| tensor.to_f32()).unwrap_or_default();
        match values[..] {
            [value] if value.is_finite() => Ok(value.into()),
            [value] => Err(format!("{name} is {value}")),
            _ => Err(format!("{name} has {} values, not one", values.len())),
        }
    }

    /// The alpha that PEFT's configuration of the component has for this tensor.
    fn configured_alpha(&self, component: &str, tensor: &str) -> Result<Option<f64>, String> {
        let module = tensor.strip_suffix(".weight").unwrap_or(tensor);
        let patterns = self.entry(component, "alpha_pattern").and_then(Value::as_object);
        for (pattern, alpha) in patterns.into_iter().flatten() {
            // PEFT reads a regular expression; diffusers writes modules' names.
            if !pattern.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c)) {
                return Err(format!("its {CONFIG} has the alpha_pattern {pattern:?}, which is not a module's name"));
            }
            if module == pattern || module.ends_with(&format!(".{pattern}")) {
                return Ok(alpha.as_f64());
            }
        }
        Ok(self.entry(component, "lora_alpha").and_then(Value::as_f64))
    }

    /// An entry of the configuration of this component, or of the only one that there is.
    fn entry(&self, component: &str, key: &str) -> Option<&Value> {
        self.config.get(&format!("{component}.{key}")).or_else(|| self.config.get(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this configuration, and what the change of rank 4 of a tensor in it is multiplied with.
    fn scale(config: &str, component: &str, tensor: &str) -> f32 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lora.safetensors");
        let range = |from: usize| serde_json::json!({"dtype": "F32", "shape": [1], "data_offsets": [from, from + 4]});
        let header =
            serde_json::json!({"a.alpha": range(0), "b.lora_A.weight": range(4), "__metadata__": {CONFIG: config}});
        let header = header.to_string();
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &3f32.to_le_bytes(), &[0; 4]].concat();
        std::fs::write(&path, bytes).unwrap();
        let file = LoraFile::open(&path).unwrap();
        let module = if tensor.starts_with("a.") { "a" } else { "b" };
        file.scale(&file.modules[module], (component, tensor), Some(4)).unwrap()
    }

    #[test]
    fn an_alpha_in_the_file_is_divided_by_the_rank() {
        assert_eq!(scale("{}", "unet", "a.weight"), 0.75);
        assert_eq!(scale(r#"{"unet.lora_alpha": 8, "unet.use_rslora": true}"#, "unet", "a.weight"), 0.75);
    }

    #[test]
    fn without_an_alpha_nothing_is_scaled() {
        assert_eq!(scale("{}", "unet", "b.weight"), 1.0);
        assert_eq!(scale(r#"{"text_encoder.lora_alpha": 8}"#, "unet", "b.weight"), 1.0);
    }

    #[test]
    fn pefts_configuration_has_an_alpha_for_each_network_and_module() {
        assert_eq!(scale(r#"{"unet.lora_alpha": 8}"#, "unet", "b.weight"), 2.0);
        assert_eq!(scale(r#"{"lora_alpha": 8}"#, "unet", "b.weight"), 2.0);
        let patterns = r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"c.to_q": 1, "to_k": 2}}"#;
        assert_eq!(scale(patterns, "unet", "b.c.to_q.weight"), 0.25);
        assert_eq!(scale(patterns, "unet", "b.c.to_k.weight"), 0.5);
        assert_eq!(scale(patterns, "unet", "b.other_to_k.weight"), 2.0);
    }

    #[test]
    fn rs_lora_divides_by_the_ranks_root() {
        assert_eq!(scale(r#"{"unet.lora_alpha": 8, "unet.use_rslora": true}"#, "unet", "b.weight"), 4.0);
    }
}
