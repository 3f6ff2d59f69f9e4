//! One name for a tensor that published files store under several.

use std::borrow::Cow;

/// What networks call the tensor that a file of this component (`unet`, `vae`, `text_encoder`, ..) stores as `stored`.
///
/// - Text encoders: transformers 4 writes `text_model.encoder.layers.0..`, transformers 5 leaves `text_model.` away.
///   The name with it is the canonical one; the projection stands outside of it in both.
/// - Attention over pixels (VAEs, unconditional UNets): files from before diffusers 0.18 call its projections `query`,
///   `key`, `value`, `proj_attn`.
pub fn canonical<'a>(component: &str, stored: &'a str) -> Cow<'a, str> {
    if component.starts_with("text_encoder") { text_encoder(stored) } else { attention(stored) }
}

fn text_encoder(stored: &str) -> Cow<'_, str> {
    const OUTSIDE: [&str; 3] = ["text_model.", "text_projection", "logit_scale"];
    if OUTSIDE.iter().any(|start| stored.starts_with(start)) {
        return Cow::Borrowed(stored);
    }
    Cow::Owned(format!("text_model.{stored}"))
}

fn attention(stored: &str) -> Cow<'_, str> {
    const NEW_NAMES: [(&str, &str); 4] =
        [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];
    let Some((path, kind)) = stored.rsplit_once('.') else { return Cow::Borrowed(stored) };
    let Some((block, old)) = path.rsplit_once('.') else { return Cow::Borrowed(stored) };
    match NEW_NAMES.iter().find(|(name, _)| *name == old) {
        Some((_, new)) if block.contains(".attentions.") => Cow::Owned(format!("{block}.{new}.{kind}")),
        _ => Cow::Borrowed(stored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_encoders_get_their_prefix() {
        let name = "text_model.encoder.layers.0.mlp.fc1.weight";
        assert_eq!(canonical("text_encoder", name), name);
        assert_eq!(canonical("text_encoder_2", &name["text_model.".len()..]), name);
        assert_eq!(canonical("text_encoder_2", "text_projection.weight"), "text_projection.weight");
    }

    #[test]
    fn old_attention_names_of_the_vae_become_the_new_ones() {
        let old = |name: &str| canonical("vae", &format!("decoder.mid_block.attentions.0.{name}.weight")).into_owned();
        assert_eq!(old("query"), "decoder.mid_block.attentions.0.to_q.weight");
        assert_eq!(old("proj_attn"), "decoder.mid_block.attentions.0.to_out.0.weight");
        assert_eq!(old("to_k"), "decoder.mid_block.attentions.0.to_k.weight");
        assert_eq!(old("group_norm"), "decoder.mid_block.attentions.0.group_norm.weight");
    }

    #[test]
    fn attention_over_pixels_has_new_names_in_a_unet_too() {
        assert_eq!(canonical("unet", "mid_block.attentions.0.key.weight"), "mid_block.attentions.0.to_k.weight");
        let transformer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_k.weight";
        assert_eq!(canonical("unet", transformer), transformer);
    }
}
