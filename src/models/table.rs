//! The classes of networks that are built: one row each.

use serde_json::Value;

use super::autoencoder::Autoencoder;
use super::config::NetworkConfig;
use super::{clip, clip_vision, controlnet, ldm_bert, unet, unet2d};
use crate::error::{Error, Result};

/// A class of networks.
struct Row {
    /// What its configurations call it: `_class_name`, or one of `architectures`.
    class: &'static str,
    /// The folders whose configurations are of this class though they do not say so.
    folders: &'static [&'static str],
    /// Reads the text of a `config.json`, whose place messages name.
    open: fn(&str, &str) -> Result<Box<dyn NetworkConfig>>,
}

const TABLE: &[Row] = &[
    Row {
        class: "CLIPTextModel",
        folders: &["text_encoder", "text_encoder_2"],
        open: |text, at| any(clip::Config::from_json(text, at)),
    },
    Row { class: "CLIPTextModelWithProjection", folders: &[], open: |text, at| any(clip::Config::from_json(text, at)) },
    Row {
        class: "CLIPVisionModelWithProjection",
        folders: &["image_encoder"],
        open: |text, at| any(clip_vision::Config::from_json(text, at)),
    },
    Row {
        class: "StableUnCLIPImageNormalizer",
        folders: &["image_normalizer"],
        open: |text, at| any(clip_vision::Normalizer::from_json(text, at)),
    },
    Row { class: "LDMBertModel", folders: &["bert"], open: |text, at| any(ldm_bert::Config::from_json(text, at)) },
    Row { class: "UNet2DConditionModel", folders: &["unet"], open: |text, at| any(unet::Config::from_json(text, at)) },
    Row { class: "UNet2DModel", folders: &[], open: |text, at| any(unet2d::Config::from_json(text, at)) },
    Row { class: "AutoencoderKL", folders: &["vae"], open: |text, at| any(Autoencoder::from_json(text, at)) },
    Row { class: "VQModel", folders: &[], open: |text, at| any(Autoencoder::from_json(text, at)) },
    Row { class: "AutoencoderTiny", folders: &[], open: |text, at| any(Autoencoder::from_json(text, at)) },
    Row {
        class: "ControlNetModel",
        folders: &["controlnet"],
        open: |text, at| any(controlnet::Config::from_json(text, at)),
    },
];

fn any(config: Result<impl NetworkConfig + 'static>) -> Result<Box<dyn NetworkConfig>> {
    Ok(Box::new(config?))
}

/// The classes that are built.
pub fn classes() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.class)
}

/// What a `config.json` in a folder of this name describes, by the class that it names or else by the folder; `None`
/// if that class is not built.
///
/// # Errors
/// If it is not a JSON object, or asks for what is not built of its class.
pub fn open(folder: &str, text: &str, place: &str) -> Result<Option<Box<dyn NetworkConfig>>> {
    let class = class_of(text, place)?;
    let row = TABLE.iter().find(|row| match &class {
        Some(class) => row.class == class,
        None => row.folders.contains(&folder),
    });
    row.map(|row| (row.open)(text, place)).transpose()
}

/// The class that a `config.json` names, as diffusers or as transformers does.
///
/// # Errors
/// If it is not a JSON object.
pub fn class_of(text: &str, place: &str) -> Result<Option<String>> {
    let keys: serde_json::Map<String, Value> =
        serde_json::from_str(text).map_err(|e| Error::config(place, format!("not a JSON object: {e}")))?;
    let class = keys.get("_class_name").or_else(|| keys.get("architectures")?.get(0));
    Ok(class.and_then(Value::as_str).map(String::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ports::{Sizes, bind};
    use crate::rng::Generator;

    /// The rest of a class's configuration stays at its defaults.
    fn each(look: impl Fn(&'static str, &dyn NetworkConfig)) {
        for class in classes() {
            let text = match class {
                "CLIPTextModel" | "CLIPTextModelWithProjection" | "CLIPVisionModelWithProjection" | "LDMBertModel" => {
                    format!(r#"{{"architectures": ["{class}"]}}"#)
                }
                "UNet2DConditionModel" | "ControlNetModel" => {
                    format!(r#"{{"_class_name": "{class}", "cross_attention_dim": 768}}"#)
                }
                _ => format!(r#"{{"_class_name": "{class}"}}"#),
            };
            look(class, &*open("elsewhere", &text, class).unwrap().expect(class));
        }
    }

    #[test]
    fn a_class_says_what_it_is_and_the_folder_only_if_it_does_not() {
        assert!(open("unet", r#"{"_class_name": "AutoencoderTiny"}"#, "x").unwrap().unwrap().ways().len() == 2);
        assert!(open("vae", "{}", "x").unwrap().is_some());
        assert!(open("safety_checker", r#"{"architectures": ["Checker"]}"#, "x").unwrap().is_none());
        assert!(open("scheduler", "{}", "x").unwrap().is_none());
        assert!(open("vae", "[]", "x").is_err());
    }

    #[test]
    fn a_graphs_inputs_are_its_ports() {
        each(|class, config| {
            for way in config.ways() {
                let mut sizes = Sizes { batch: 2, height: 8, width: 16, tokens: 7 };
                let ports = config.ports(way);
                let mut generator = Generator::new(1);
                let filled = ports.iter().map(|port| (port.name.into(), port.random(&sizes, &mut generator))).collect();
                let (mut inputs, found) = bind(&ports, filled).unwrap();
                config.prepare(way, &mut inputs).unwrap();
                sizes = found;
                let graph = config.graph("network", way, &sizes).unwrap();
                let mut names: Vec<_> = graph.inputs().map(|(name, _)| name).collect();
                names.sort_unstable();
                assert_eq!(names, inputs.keys().collect::<Vec<_>>(), "{class} {way}");
                for name in names {
                    let wanted = graph.shape(graph.input_named(name).unwrap());
                    assert_eq!(inputs[name].shape, *wanted, "{class} {way}: {name}");
                }
            }
        });
    }

    #[test]
    fn a_file_holds_what_every_way_reads_and_nothing_else() {
        each(|class, config| {
            let sizes = Sizes { batch: 1, height: 8, width: 8, tokens: 7 };
            let graphs = config.ways().iter().map(|way| config.graph("network", way, &sizes).unwrap());
            let mut read: Vec<_> = graphs.flat_map(|graph| graph.wanted()).collect();
            let mut wanted = config.wanted("network").unwrap();
            // What has no pass is read by a system.
            wanted.retain(|_| !config.ways().is_empty());
            read.sort_by(|a, b| a.0.cmp(&b.0));
            wanted.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(read, wanted, "{class}");
        });
    }
}
