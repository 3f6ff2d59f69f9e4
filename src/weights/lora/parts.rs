//! What a tensor of a LoRA file is: which part of a module's change, by the end of its name.
//!
//! Sources: kohya's sd-scripts (`lora_down`), PEFT (`lora_A`), diffusers before it used PEFT (`lora.down`,
//! `to_q_lora.down`, `lora_linear_layer`), and LyCORIS (`hada`, `lokr`, `lora_mid`, `dora_scale`).

/// A part of the change of one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Alpha,
    /// DoRA's lengths as LyCORIS and kohya write them, and as PEFT does.
    DoraScale,
    Magnitude,
    Down,
    Up,
    Mid,
    HadaW1A,
    HadaW1B,
    HadaT1,
    HadaW2A,
    HadaW2B,
    HadaT2,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
}

const ENDS: &[(&str, Part)] = &[
    (".alpha", Part::Alpha),
    (".dora_scale", Part::DoraScale),
    (".lora_magnitude_vector", Part::Magnitude),
    (".lora_magnitude_vector.weight", Part::Magnitude),
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_mid.weight", Part::Mid),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    ("_lora.alpha", Part::Alpha),
    (".hada_w1_a", Part::HadaW1A),
    (".hada_w1_b", Part::HadaW1B),
    (".hada_t1", Part::HadaT1),
    (".hada_w2_a", Part::HadaW2A),
    (".hada_w2_b", Part::HadaW2B),
    (".hada_t2", Part::HadaT2),
    (".lokr_w1", Part::LokrW1),
    (".lokr_w1_a", Part::LokrW1A),
    (".lokr_w1_b", Part::LokrW1B),
    (".lokr_w2", Part::LokrW2),
    (".lokr_w2_a", Part::LokrW2A),
    (".lokr_w2_b", Part::LokrW2B),
    (".lokr_t2", Part::LokrT2),
];

/// The module that a tensor of this name changes, and which part of the change it is.
pub fn split(name: &str) -> Option<(&str, Part)> {
    // The longest end: `_lora.alpha` is one of `.alpha`, too.
    let ends = ENDS.iter().filter_map(|(end, part)| Some((name.strip_suffix(end)?, *part)));
    ends.min_by_key(|(module, _)| module.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_a_part_is_known() {
        for (name, module, part) in [
            (
                "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
                "lora_unet_mid_block_attentions_0_proj_in",
                Part::Down,
            ),
            ("unet.mid_block.attentions.0.proj_in.lora_B.weight", "unet.mid_block.attentions.0.proj_in", Part::Up),
            ("unet.conv_in.lora_A.default.weight", "unet.conv_in", Part::Down),
            ("unet.a.attn1.processor.to_q_lora.down.weight", "unet.a.attn1.processor.to_q", Part::Down),
            ("unet.a.attn1.to_q_lora.alpha", "unet.a.attn1.to_q", Part::Alpha),
            ("text_encoder.a.fc1.lora_linear_layer.up.weight", "text_encoder.a.fc1", Part::Up),
            ("unet.a.to_q.lora.down.weight", "unet.a.to_q", Part::Down),
            ("a.lora_magnitude_vector", "a", Part::Magnitude),
            ("a.lokr_w2", "a", Part::LokrW2),
            ("a.lokr_w2_a", "a", Part::LokrW2A),
            ("a.lora_mid.weight", "a", Part::Mid),
        ] {
            assert_eq!(split(name), Some((module, part)), "{name}");
        }
    }

    #[test]
    fn what_is_no_part_is_not_taken_for_one() {
        for name in ["a.weight", "a.lora_B.bias", "a.diff", "a.oft_blocks", "a.lora_C.weight", "alpha", ""] {
            assert_eq!(split(name), None, "{name}");
        }
    }
}
