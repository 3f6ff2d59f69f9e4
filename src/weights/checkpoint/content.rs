//! What a file of tensors is, for one that is given as something else.

use std::path::Path;

use crate::error::{Error, Field, Remedy};
use crate::weights::family::{CONTROLNET, Families, Foreign};
use crate::weights::file::TensorFile;

/// What a file is.
#[derive(Debug, PartialEq)]
pub enum Content {
    /// One that is not supported, as an error says it.
    Unsupported(&'static str),
    /// One that is given as this field, and what it is.
    For(Field, String),
}

/// Parts of names that only one kind of file has, the kind, and what to do.
const KINDS: &[Foreign] = &[
    (&["lora_controlnet"], "is a Control-LoRA, which is not supported; give a ControlNet"),
    (&["difference"], "is a ControlNet's difference to a model, which is not supported; give the whole ControlNet"),
    (
        &["control_add_embedding."],
        "is a ControlNet for several kinds of images, which is not supported; give one for one",
    ),
];

/// The same of those that are for a field of a request.
const SUPPORTED: &[(&[&str], Field)] = &[
    (
        &["lora_up.", "lora_down.", "lora_A.", "lora_B.", "lora.up.", "lora.down.", "hada_w1", "lokr_w1", "dora_scale"],
        Field::Lora,
    ),
    (&["emb_params", "string_to_param"], Field::Embedding),
];

/// What is given as these fields.
const CALLED: [(Field, &str); 12] = [
    (Field::Model, "a model"),
    (Field::Base, "a model"),
    (Field::Refiner, "a refiner"),
    (Field::Unet, "a UNet"),
    (Field::Vae, "an autoencoder (VAE)"),
    (Field::TextEncoder, "a text encoder"),
    (Field::TextEncoder2, "a text encoder"),
    (Field::Control, "a ControlNet"),
    (Field::Lora, "a LoRA"),
    (Field::Embedding, "a textual inversion"),
    (Field::InitLatents, "a file of latents"),
    (Field::InitImage, "a picture"),
];

/// What is given as this field, with its article.
pub fn called(field: Field) -> &'static str {
    CALLED.iter().find(|(known, _)| *known == field).map_or(field.word(), |(_, called)| called)
}

/// As what a component is given: its own field, or that of the kind of network that it is.
pub fn field_of(component: &str) -> Option<Field> {
    match component {
        "vqvae" => Some(Field::Vae),
        CONTROLNET => Some(Field::Control),
        _ => Field::ALL.iter().copied().find(|field| field.word().replace(' ', "_") == component),
    }
}

/// As what to give a file for this field. Which of two a text encoder is does not follow from it alone.
pub fn given_as(field: Field) -> impl Iterator<Item = Remedy> {
    let encoders = [Field::TextEncoder, Field::TextEncoder2];
    let fields = if encoders.contains(&field) { encoders.to_vec() } else { vec![field] };
    fields.into_iter().map(Remedy::GiveAs)
}

impl Content {
    /// What is given as this field.
    pub fn of(field: Field) -> Self {
        Self::For(field, called(field).into())
    }

    /// By names that only one kind of file has, if it holds no network of its own.
    pub fn of_names(file: &TensorFile, families: &Families) -> Option<Self> {
        let names: Vec<&str> = file.all_names().collect();
        let field = match names[..] {
            ["latents"] => Some(Field::InitLatents),
            ["clip_g", "clip_l"] => Some(Field::Embedding),
            // A word and its vectors.
            [word] if !word.contains('.') && file.shape(word).is_some_and(|shape| shape.dims().len() == 2) => {
                Some(Field::Embedding)
            }
            _ => None,
        };
        field.map(Self::of).or_else(|| other_kind(names.into_iter(), families.others))
    }

    /// The error of such a file at this path where one for another field is wanted.
    pub fn error(&self, path: &Path, wanted: Field) -> Error {
        match self {
            Self::Unsupported(what) => Error::file(path, what),
            Self::For(field, what) => {
                Error::file(path, format!("is {what}, not {}", called(wanted))).remedies(given_as(*field))
            }
        }
    }
}

/// What a file with these names is, if that is known, here or as one of `others`, and cannot be opened as a model.
fn other_kind<'a>(names: impl Iterator<Item = &'a str> + Clone, others: &[Foreign]) -> Option<Content> {
    let has = |parts: &[&str]| parts.iter().any(|part| names.clone().any(|name| name.contains(part)));
    let unsupported =
        |kinds: &[Foreign]| kinds.iter().find(|(parts, _)| has(parts)).map(|(_, what)| Content::Unsupported(what));
    let supported = || SUPPORTED.iter().find(|(parts, _)| has(parts)).map(|(_, field)| Content::of(*field));
    unsupported(KINDS).or_else(supported).or_else(|| unsupported(others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_is_told_in_every_way_it_is_written() {
        for name in [
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
            "unet.mid_block.attentions.0.proj_in.lora_A.weight",
            "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a",
        ] {
            assert_eq!(other_kind([name].into_iter(), &[]), Some(Content::of(Field::Lora)), "{name}");
        }
        assert_eq!(other_kind(["model.diffusion_model.input_blocks.0.0.weight"].into_iter(), &[]), None);
    }
}
