//! The UNet's `config.json`.

use serde_json::json;

use super::levels::{Extent, Level, Middle, levels};
use crate::error::Result;
use crate::models::keys::Keys;

/// No kernel is wider or higher than this: the product of a convolution's four dimensions stays far from overflow.
const MOST_TAPS: usize = 31;

/// SDXL's time ids, and those of its refiner.
const TIME_IDS: usize = 6;
const REFINER_IDS: usize = 5;

/// A UNet's `config.json`, with what diffusers derives from it. Shown, it is what sets a UNet apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Channels of its input: the latents', and for inpainting those of the mask and the masked picture.
    pub in_channels: usize,
    /// Channels of what it predicts.
    pub out_channels: usize,
    /// Height and width of the latents that it was trained on.
    pub sample_size: Option<[usize; 2]>,
    /// Width of the text encoder's tokens.
    pub cross_attention_dim: usize,
    /// Width of the vector that is embedded as a class (`class_embed_type` `projection`): unCLIP's picture.
    pub class_width: Option<usize>,
    /// What SDXL adds to the time embedding.
    pub text_time: Option<TextTime>,
    /// Width of the guidance embedding that a network takes which was distilled with guidance (`time_cond_proj_dim`).
    pub guidance_width: Option<usize>,
    /// Rows of its table of class embeddings (`num_class_embeds`): the classes, or noise levels, that it knows.
    pub classes: Option<usize>,
    pub(super) levels: Vec<Level>,
    pub(super) mid: Option<Middle>,
    pub(super) groups: usize,
    pub(super) norm_eps: f32,
    pub(super) linear_projection: bool,
    pub(super) downsample_padding: usize,
    pub(super) conv_in_kernel: usize,
    pub(super) conv_out_kernel: usize,
    pub(super) time_embed_dim: usize,
    pub(super) flip_sin_to_cos: bool,
    pub(super) freq_shift: f32,
}

/// SDXL's added embedding (`addition_embed_type` `text_time`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextTime {
    /// Width of the pooled text embedding.
    pub text_width: usize,
    /// How many time ids there are: 6, original height and width, the crop's top and left, target height and width; or
    /// 5, a refiner's, with an aesthetic score in the place of the last two.
    pub ids: usize,
    /// Sines and cosines for each of the time ids.
    pub id_width: usize,
}

impl TextTime {
    /// Whether it takes an aesthetic score.
    pub fn takes_score(&self) -> bool {
        self.ids == REFINER_IDS
    }

    /// The same with or without an aesthetic score, whatever the widths suggest; `None` if nothing is left for the
    /// text.
    pub fn scored(self, takes_score: bool) -> Option<Self> {
        let ids = if takes_score { REFINER_IDS } else { TIME_IDS };
        let text_width = (self.text_width + self.ids * self.id_width).checked_sub(ids * self.id_width)?;
        (text_width > 0).then_some(Self { text_width, ids, ..self })
    }
}

impl Config {
    /// Reads a `config.json`; `place` is what error messages call it. Absent keys have the defaults of diffusers'
    /// `UNet2DConditionModel`.
    ///
    /// # Errors
    /// If a value is not supported or a key is not known; the message names both.
    pub fn from_json(text: &str, place: &str) -> Result<Self> {
        let mut keys = Keys::parse(text, place)?;
        keys.only(&[("_class_name", json!("UNet2DConditionModel"))])?;
        let config = Self::read(&mut keys, Extent::DownAndUp)?;
        keys.finish()?;
        Ok(config)
    }

    /// What is said of the way down and the middle, and with [`Extent::DownAndUp`] of the way up.
    pub(super) fn read(keys: &mut Keys, extent: Extent) -> Result<Self> {
        refuse_what_is_not_built(keys)?;
        let channels = keys.counts("block_out_channels", &[320, 640, 1280, 1280])?;
        let (levels, mid) = levels(keys, &channels, extent)?;
        let cross_attention_dim = cross_attention_dim(keys, channels.len())?;
        let config = Self {
            in_channels: keys.count("in_channels", 4)?,
            out_channels: keys.count("out_channels", 4)?,
            sample_size: keys.size("sample_size")?,
            cross_attention_dim,
            class_width: class_width(keys)?,
            text_time: text_time(keys, cross_attention_dim)?,
            guidance_width: guidance_width(keys)?,
            classes: keys.optional_count("num_class_embeds")?,
            levels,
            mid,
            groups: keys.count("norm_num_groups", 32)?,
            norm_eps: keys.eps("norm_eps", 1e-5)?,
            linear_projection: keys.get("use_linear_projection", false)?,
            downsample_padding: keys.get("downsample_padding", 1)?,
            conv_in_kernel: keys.count("conv_in_kernel", 3)?,
            conv_out_kernel: keys.count("conv_out_kernel", 3)?,
            time_embed_dim: keys.optional_count("time_embedding_dim")?.unwrap_or(4 * channels[0]),
            flip_sin_to_cos: keys.get("flip_sin_to_cos", true)?,
            freq_shift: keys.finite("freq_shift", 0.0)?,
        };
        for (key, value) in [("conv_in_kernel", config.conv_in_kernel), ("conv_out_kernel", config.conv_out_kernel)] {
            if value % 2 == 0 || value > MOST_TAPS {
                return Err(keys.error(format!("{key} is {value}, supported: odd numbers up to {MOST_TAPS}")));
            }
        }
        if config.downsample_padding > 1 {
            return Err(keys.error(format!("downsample_padding is {}, supported: 0, 1", config.downsample_padding)));
        }
        Ok(config)
    }
}

impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |number: fn(&Level) -> usize| {
            self.levels.iter().map(|level| number(level).to_string()).collect::<Vec<_>>().join("-")
        };
        let (channels, heads) = (list(|level| level.channels), list(|level| level.heads));
        let (inputs, text) = (self.in_channels, self.cross_attention_dim);
        let classes = self.classes.map(|classes| format!(", {classes} classes")).unwrap_or_default();
        write!(f, "{channels} channels, {heads} heads, {inputs} inputs, text {text} wide{classes}")
    }
}

/// Keys that ask for other mathematics, and those that ask for none.
fn refuse_what_is_not_built(keys: &mut Keys) -> Result<()> {
    keys.only(&[
        ("center_input_sample", json!(false)),
        ("mid_block_scale_factor", json!(1)),
        ("dual_cross_attention", json!(false)),
        ("class_embeddings_concat", json!(false)),
        ("encoder_hid_dim", json!(null)),
        ("encoder_hid_dim_type", json!(null)),
        ("resnet_time_scale_shift", json!("default")),
        ("resnet_skip_time_act", json!(false)),
        ("resnet_out_scale_factor", json!(1)),
        ("time_embedding_type", json!("positional")),
        ("time_embedding_act_fn", json!(null)),
        ("timestep_post_act", json!(null)),
        ("attention_type", json!("default")),
        ("cross_attention_norm", json!(null)),
    ])?;
    keys.one_of("act_fn", "silu", &["silu", "swish"])?;
    // Attention scores are f32 on every device, so nothing is left to upcast.
    keys.ignore(&["upcast_attention", "dropout", "addition_embed_type_num_heads"]);
    // What training programs leave of their moving average.
    keys.ignore(&["decay", "inv_gamma", "max_value", "min_decay", "min_value", "optimization_step", "power"]);
    keys.ignore(&["update_after_step", "use_ema_warmup"]);
    Ok(())
}

fn cross_attention_dim(keys: &mut Keys, blocks: usize) -> Result<usize> {
    let dims = keys.count_per_block("cross_attention_dim", 1280, blocks)?;
    if dims.iter().all(|d| *d == dims[0]) {
        return Ok(dims[0]);
    }
    Err(keys.error(format!("cross_attention_dim is {dims:?}, supported: the same for all blocks")))
}

fn guidance_width(keys: &mut Keys) -> Result<Option<usize>> {
    let key = "time_cond_proj_dim";
    match keys.optional_count(key)? {
        Some(width) if width < 4 || width % 2 != 0 => {
            Err(keys.error(format!("{key} is {width}, supported: even numbers from 4 on")))
        }
        width => Ok(width),
    }
}

fn class_width(keys: &mut Keys) -> Result<Option<usize>> {
    let key = "class_embed_type";
    match keys.get::<Option<String>>(key, None)?.as_deref() {
        None => Ok(None),
        Some("projection") => keys.count("projection_class_embeddings_input_dim", 0).map(Some),
        Some(other) => Err(keys.error(format!("{key} is {other:?}, supported: null, projection"))),
    }
}

fn text_time(keys: &mut Keys, cross_attention_dim: usize) -> Result<Option<TextTime>> {
    let (id_key, all_key) = ("addition_time_embed_dim", "projection_class_embeddings_input_dim");
    let kind: Option<String> = keys.get("addition_embed_type", None)?;
    match kind.as_deref() {
        None => {
            keys.ignore(&[id_key, all_key]);
            Ok(None)
        }
        Some("text_time") => {
            let (id_width, all) = (keys.count(id_key, 0)?, keys.count(all_key, 0)?);
            // A refiner reads one text encoder, so its pooled text is as wide as its tokens.
            let refines = all.checked_sub(REFINER_IDS * id_width) == Some(cross_attention_dim);
            let ids = if refines { REFINER_IDS } else { TIME_IDS };
            match all.checked_sub(ids * id_width) {
                Some(text_width) if text_width > 0 => Ok(Some(TextTime { text_width, ids, id_width })),
                _ => Err(keys.error(format!("{all_key} is {all}, too little for {ids} x {id_key} {id_width}"))),
            }
        }
        Some(other) => Err(keys.error(format!("addition_embed_type is {other:?}, supported: null, text_time"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config> {
        Config::from_json(text, "unet/config.json")
    }

    fn message(text: &str) -> String {
        config(text).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_those_of_stable_diffusion_1() {
        let c = config(r#"{"cross_attention_dim": 768, "sample_size": 64}"#).unwrap();
        assert_eq!(c.sample_size, Some([64, 64]));
        assert_eq!(c.levels.iter().map(|l| l.heads).collect::<Vec<_>>(), [8; 4]);
        assert_eq!(c.levels[0].down, [Some(1); 2]);
        assert_eq!(c.levels[3].up, [None; 3]);
        assert_eq!(c.mid, Some(Middle { heads: 8, depth: Some(1), only_cross: false }));
    }

    #[test]
    fn attention_head_dim_is_the_number_of_heads_unless_that_is_given() {
        let c = config(r#"{"attention_head_dim": [5, 10, 20, 20]}"#).unwrap();
        assert_eq!(c.levels[1].heads, 10);
        let c = config(r#"{"attention_head_dim": 64, "num_attention_heads": 4}"#).unwrap();
        assert_eq!(c.levels[1].heads, 4);
    }

    #[test]
    fn depths_may_be_given_for_each_layer_and_for_the_way_up() {
        let c = config(
            r#"{"block_out_channels": [32, 64], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": [0, [4, 2]],
                "reverse_transformer_layers_per_block": [[4, 4, 10], 0]}"#,
        )
        .unwrap();
        assert_eq!(c.levels[0].down, [None; 2]);
        assert_eq!(c.levels[1].down, [Some(4), Some(2)]);
        assert_eq!(c.levels[1].up, [Some(4), Some(4), Some(10)]);
        assert_eq!(c.mid, Some(Middle { heads: 8, depth: Some(4), only_cross: false }));
    }

    #[test]
    fn the_middle_attends_to_pixels_unless_all_blocks_or_it_alone_attend_to_text_only() {
        let middle = |text: &str| config(text).unwrap().mid.unwrap().only_cross;
        assert!(!middle(r#"{"only_cross_attention": [true, true, true, false]}"#));
        assert!(middle(r#"{"only_cross_attention": true}"#));
        assert!(middle(r#"{"mid_block_only_cross_attention": true}"#));
        assert!(!middle(r#"{"only_cross_attention": true, "mid_block_only_cross_attention": false}"#));
        let c = config(r#"{"only_cross_attention": [true, false, false, false]}"#).unwrap();
        assert_eq!(c.levels.iter().map(|l| l.only_cross).collect::<Vec<_>>(), [true, false, false, false]);
    }

    #[test]
    fn a_block_that_is_not_built_is_named() {
        let error = message(r#"{"down_block_types": ["SimpleCrossAttnDownBlock2D"]}"#);
        assert_eq!(
            error,
            "unet/config.json: down_block_types has \"SimpleCrossAttnDownBlock2D\", supported: CrossAttnDownBlock2D, \
             DownBlock2D"
        );
        assert!(message(r#"{"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}"#).contains("mid_block_type is"));
    }

    #[test]
    fn a_value_that_changes_the_mathematics_is_named() {
        for (json, part) in [
            (r#"{"class_embed_type": "timestep"}"#, "class_embed_type is \"timestep\", supported: null, projection"),
            (r#"{"class_embed_type": "projection"}"#, "projection_class_embeddings_input_dim has 0"),
            (r#"{"num_class_embeds": 0}"#, "num_class_embeds has 0"),
            (r#"{"resnet_time_scale_shift": "scale_shift"}"#, "resnet_time_scale_shift is \"scale_shift\""),
            (r#"{"only_cross_attention": [true, false]}"#, "only_cross_attention has 2 entries"),
            (r#"{"act_fn": "gelu"}"#, "act_fn has \"gelu\""),
            (r#"{"norm_num_groups": null}"#, "norm_num_groups is null, expected a whole number"),
            (r#"{"addition_embed_type": "text"}"#, "addition_embed_type is \"text\""),
            (r#"{"downsample_padding": 2}"#, "downsample_padding is 2"),
            (r#"{"conv_in_kernel": 2}"#, "conv_in_kernel is 2"),
            (r#"{"conv_out_kernel": 33}"#, "conv_out_kernel is 33"),
            (r#"{"time_embedding_dim": 18446744073709551615}"#, "time_embedding_dim has 18446744073709551615"),
            (r#"{"sample_size": [64, 18446744073709551615]}"#, "sample_size has 18446744073709551615"),
            (r#"{"layers_per_block": 1000000}"#, "layers_per_block has [1000000"),
            (r#"{"cross_attention_dim": [1, 2, 3, 4]}"#, "cross_attention_dim is [1, 2, 3, 4]"),
            (r#"{"a_new_key": 1}"#, "a_new_key = 1"),
            (r#"{"block_out_channels": [320]}"#, "they must agree"),
            (r#"{"attention_head_dim": 0}"#, "attention_head_dim has 0"),
            (r#"{"time_cond_proj_dim": 7}"#, "time_cond_proj_dim is 7"),
            (r#"{"time_cond_proj_dim": 0}"#, "time_cond_proj_dim has 0"),
            (r#"{"layers_per_block": [1, 2]}"#, "layers_per_block has 2 entries"),
        ] {
            assert!(message(json).contains(part), "{json}: {}", message(json));
        }
    }

    #[test]
    fn a_refiner_is_told_five_ids_beside_a_text_as_wide_as_its_tokens() {
        let added = |cross: usize, all: usize| {
            let text = format!(
                r#"{{"addition_embed_type": "text_time", "addition_time_embed_dim": 256,
                    "cross_attention_dim": {cross}, "projection_class_embeddings_input_dim": {all}}}"#
            );
            config(&text).unwrap().text_time.unwrap()
        };
        let (refiner, base) = (added(1280, 2560), added(2048, 2816));
        assert_eq!(
            [refiner, base],
            [(1280, 5), (1280, 6)].map(|(text_width, ids)| TextTime { text_width, ids, id_width: 256 })
        );
        assert!(refiner.takes_score() && !base.takes_score());
        assert_eq!(refiner.scored(false), Some(TextTime { text_width: 1024, ids: 6, id_width: 256 }));
        assert_eq!(base.scored(false), Some(base));
    }

    #[test]
    fn text_time_needs_its_widths() {
        let error = message(r#"{"addition_embed_type": "text_time"}"#);
        assert!(error.contains("addition_time_embed_dim has 0"), "{error}");
        let error = message(
            r#"{"addition_embed_type": "text_time", "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 1536}"#,
        );
        assert!(error.contains("too little"), "{error}");
    }
}
