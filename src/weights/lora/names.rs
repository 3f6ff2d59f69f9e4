//! What LoRA files call the modules of a model's networks.

use std::collections::HashMap;

use crate::weights::checkpoint::Original;
use crate::weights::family::Component;

/// Ends of modules' names, and what old files of diffusers have there.
const OLD_ENDS: [(&str, &str); 5] = [
    (".to_out.0", ".to_out"),
    (".self_attn.q_proj", ".self_attn.to_q"),
    (".self_attn.k_proj", ".self_attn.to_k"),
    (".self_attn.v_proj", ".self_attn.to_v"),
    (".self_attn.out_proj", ".self_attn.to_out"),
];

/// A network's place among those of [`Names::of`], and the name of a tensor in it.
pub type Place = (usize, String);

/// The tensors of a model by what such files call their modules.
pub struct Names {
    tensors: HashMap<String, Place>,
    /// How names of modules begin.
    starts: Vec<&'static str>,
}

impl Names {
    /// Of a model's networks and the names of their tensors.
    pub fn of(networks: impl Iterator<Item = (&'static Component, Vec<String>)>) -> Self {
        let (mut names, mut starts) = (HashMap::new(), Vec::new());
        for (place, (network, tensors)) in networks.enumerate() {
            let [dotted, underscored] = network.lora;
            starts.extend(dotted.iter().chain(underscored).filter(|start| !start.is_empty()));
            let original = Original::of(tensors.iter().map(String::as_str));
            for tensor in &tensors {
                let Some(module) = tensor.strip_suffix(".weight") else { continue };
                for name in written(module, &original) {
                    let flat = name.replace('.', "_");
                    let dotted = dotted.iter().map(|start| format!("{start}{name}"));
                    let all = dotted.chain(underscored.iter().map(|start| format!("{start}{flat}")));
                    all.for_each(|name| _ = names.insert(name, (place, tensor.clone())));
                }
            }
        }
        Self { tensors: names, starts }
    }

    /// Whether a module is named in a way that is known, if not one that the model has.
    pub fn knows(&self, module: &str) -> bool {
        self.find(module).is_some() || self.starts.iter().any(|start| module.starts_with(start))
    }

    /// The tensor that a module of such a file changes.
    pub fn find(&self, module: &str) -> Option<&Place> {
        // Old files of diffusers name the processor that held the matrices.
        self.tensors.get(module).or_else(|| self.tensors.get(&module.replace(".processor.", ".")))
    }
}

/// A module's names without the start.
fn written(module: &str, original: &Original) -> Vec<String> {
    let mut names = vec![module.to_string()];
    // transformers 5 leaves it away.
    names.extend(module.strip_prefix("text_model.").map(String::from));
    names.extend(original.name(module));
    let old = |name: &String| OLD_ENDS.iter().find_map(|(new, old)| Some(format!("{}{old}", name.strip_suffix(new)?)));
    let more: Vec<String> = names.iter().filter_map(old).collect();
    names.extend(more);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_OUT: &str = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.weight";
    const Q_PROJ: &str = "text_model.encoder.layers.3.self_attn.q_proj.weight";

    fn names() -> Names {
        let unet = [
            TO_OUT,
            "down_blocks.0.resnets.0.conv1.weight",
            "down_blocks.0.downsamplers.0.conv.weight",
            "down_blocks.1.resnets.0.conv1.weight",
            "conv_in.weight",
            "conv_in.bias",
        ];
        let text = [Q_PROJ, "text_projection.weight"].map(String::from).to_vec();
        let networks = ["unet", "text_encoder", "text_encoder_2"].map(|name| {
            crate::systems::families::FAMILIES.components().find(|component| component.name == name).unwrap()
        });
        Names::of(networks.into_iter().zip([unet.map(String::from).to_vec(), text.clone(), text]))
    }

    #[track_caller]
    fn assert_found(modules: &[&str], component: usize, tensor: &str) {
        let names = names();
        for module in modules {
            assert_eq!(names.find(module), Some(&(component, tensor.to_string())), "{module}");
        }
    }

    #[test]
    fn a_unets_module_is_found_by_each_of_its_names() {
        let modules = [
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0",
            "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_out_0",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out",
            "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
            "diffusion_model.input_blocks.3.1.transformer_blocks.0.attn1.to_out.0",
            "unet.input_blocks.3.1.transformer_blocks.0.attn1.to_out.0",
            "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0",
        ];
        assert_found(&modules, 0, TO_OUT);
        assert_found(&["lora_unet_conv_in", "lora_unet_input_blocks_0_0", "unet.conv_in"], 0, "conv_in.weight");
        let down = ["lora_unet_input_blocks_2_0_op", "lora_unet_down_blocks_0_downsamplers_0_conv"];
        assert_found(&down, 0, "down_blocks.0.downsamplers.0.conv.weight");
    }

    #[test]
    fn a_text_encoders_module_is_found_by_each_of_its_names() {
        let first = [
            "lora_te_text_model_encoder_layers_3_self_attn_q_proj",
            "lora_te1_text_model_encoder_layers_3_self_attn_q_proj",
            "text_encoder.text_model.encoder.layers.3.self_attn.q_proj",
            "text_encoder.encoder.layers.3.self_attn.q_proj",
            "text_encoder.text_model.encoder.layers.3.self_attn.to_q",
            "clip_l.text_model.encoder.layers.3.self_attn.q_proj",
            "text_encoders.clip_l.transformer.text_model.encoder.layers.3.self_attn.q_proj",
        ];
        assert_found(&first, 1, Q_PROJ);
        let second = [
            "lora_te2_text_model_encoder_layers_3_self_attn_q_proj",
            "text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj",
            "clip_g.text_model.encoder.layers.3.self_attn.q_proj",
            "text_encoders.clip_g.transformer.text_model.encoder.layers.3.self_attn.q_proj",
        ];
        assert_found(&second, 2, Q_PROJ);
        assert_found(&["lora_te2_text_projection"], 2, "text_projection.weight");
    }

    #[test]
    fn what_the_model_does_not_have_is_not_found() {
        let names = names();
        for module in
            ["lora_unet_mid_block_attentions_0_proj_in", "lora_te3_text_projection", "unet.conv_out", "unet", ""]
        {
            assert_eq!(names.find(module), None, "{module}");
        }
    }
}
