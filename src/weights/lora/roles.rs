//! What a tensor of a LoRA file is for its module's change, by the end of its name.
//!
//! Sources: kohya's sd-scripts (`lora_down`), PEFT (`lora_A`), diffusers before it used PEFT (`lora.down`,
//! `to_q_lora.down`, `lora_linear_layer`), and LyCORIS (`hada`, `lokr`, `lora_mid`, `dora_scale`, `oft_blocks`, `diff`,
//! `w_norm`).

macro_rules! roles {
    ($($role:ident $($end:literal)+,)*) => {
        /// What a tensor is for the change of its module.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Role {
            $($role,)*
        }

        /// Ends of names, and what they mean.
        const ENDS: &[(&str, Role)] = &[$($(($end, Role::$role),)+)*];
    };
}

roles! {
    Alpha ".alpha" "_lora.alpha",
    // DoRA's lengths as LyCORIS and kohya write them, and as PEFT does.
    DoraScale ".dora_scale",
    Magnitude ".lora_magnitude_vector" ".lora_magnitude_vector.weight",
    Down ".lora_down.weight" ".lora_A.weight" ".lora_A.default.weight" ".lora.down.weight"
        ".lora_linear_layer.down.weight" "_lora.down.weight",
    Up ".lora_up.weight" ".lora_B.weight" ".lora_B.default.weight" ".lora.up.weight"
        ".lora_linear_layer.up.weight" "_lora.up.weight",
    Mid ".lora_mid.weight",
    HadaW1A ".hada_w1_a",
    HadaW1B ".hada_w1_b",
    HadaT1 ".hada_t1",
    HadaW2A ".hada_w2_a",
    HadaW2B ".hada_w2_b",
    HadaT2 ".hada_t2",
    LokrW1 ".lokr_w1",
    LokrW1A ".lokr_w1_a",
    LokrW1B ".lokr_w1_b",
    LokrW2 ".lokr_w2",
    LokrW2A ".lokr_w2_a",
    LokrW2B ".lokr_w2_b",
    LokrT2 ".lokr_t2",
    // What rows are rotated by, in 3 or 4 dimensions, and multiplied with.
    OftBlocks ".oft_blocks",
    Rescale ".rescale",
    // The change itself: of a module, of a norm.
    Diff ".diff" ".w_norm",
    DiffBias ".diff_b" ".b_norm",
}

/// The module that a tensor of this name changes, and its role in the change.
pub fn split(name: &str) -> Option<(&str, Role)> {
    // The longest end: `_lora.alpha` is one of `.alpha`, too.
    let ends = ENDS.iter().filter_map(|(end, role)| Some((name.strip_suffix(end)?, *role)));
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
                Role::Down,
            ),
            ("unet.mid_block.attentions.0.proj_in.lora_B.weight", "unet.mid_block.attentions.0.proj_in", Role::Up),
            ("unet.conv_in.lora_A.default.weight", "unet.conv_in", Role::Down),
            ("unet.a.attn1.processor.to_q_lora.down.weight", "unet.a.attn1.processor.to_q", Role::Down),
            ("unet.a.attn1.to_q_lora.alpha", "unet.a.attn1.to_q", Role::Alpha),
            ("text_encoder.a.fc1.lora_linear_layer.up.weight", "text_encoder.a.fc1", Role::Up),
            ("unet.a.to_q.lora.down.weight", "unet.a.to_q", Role::Down),
            ("a.lora_magnitude_vector", "a", Role::Magnitude),
            ("a.lokr_w2", "a", Role::LokrW2),
            ("a.lokr_w2_a", "a", Role::LokrW2A),
            ("a.lora_mid.weight", "a", Role::Mid),
            ("a.oft_blocks", "a", Role::OftBlocks),
            ("a.norm1.w_norm", "a.norm1", Role::Diff),
            ("a.diff_b", "a", Role::DiffBias),
        ] {
            assert_eq!(split(name), Some((module, part)), "{name}");
        }
    }

    #[test]
    fn what_is_no_part_is_not_taken_for_one() {
        for name in ["a.weight", "a.lora_B.bias", "a.diff_c", "a.oft_r", "a.lora_C.weight", "alpha", ""] {
            assert_eq!(split(name), None, "{name}");
        }
    }
}
