//! What follows from a checkpoint's family and from what its makers wrote into it, however its tensors are called.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::inspect::inspect;
use ornstein::network::Executor;
use ornstein::samplers;
use ornstein::systems::families::FAMILIES;
use ornstein::systems::{Event, Request, Studio};
use ornstein::tensor::{DType, Shape, Tensor, Weights};
use ornstein::weights::Model;
use ornstein::weights::checkpoint::keys::Layout;
use ornstein::weights::family::{Component, Families, Family};

use super::gguf::{plain, write_gguf_of};
use super::kept::{Kept, Tensors, write};
use super::odd::{opened, predicted};
use crate::support::{ensure, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for family in ["sd1", "sd2", "sdxl"] {
        trials.push(test(
            format!("checkpoints::{family}::file_and_folder_draw_the_same_with_every_sampler"),
            move || samplers_agree(family),
        ));
        trials.push(test(
            format!("checkpoints::{family}::whoever_wrote_the_names_the_text_encoder_is_the_same"),
            move || names_agree(family),
        ));
    }
    trials.push(test("checkpoints::a_family_is_what_its_value_says", a_value));
    trials.push(test("checkpoints::what_trainers_write_of_the_prediction_is_read", spellings));
    trials.push(test("checkpoints::a_prediction_that_is_given_replaces_what_was_found", given_prediction));
    trials.push(test("checkpoints::pure_noise_at_the_end_is_honoured_or_said", zero_snr));
    trials
}

/// A small, guided picture's latents, and what was said while it was made.
fn draw(pipeline: &Studio, request: Request) -> Result<(Tensor, Vec<String>), Failed> {
    let request = Request {
        prompt: "a photo of a cat".into(),
        width: Some(32),
        height: Some(32),
        steps: Some(4),
        batch: 1,
        ..request
    };
    let mut said = Vec::new();
    let mut tell = |event: Event| {
        if let Event::Warning(text) = event {
            said.push(text.to_string());
        }
    };
    let never = AtomicBool::new(false);
    let pictures = pollster::block_on(pipeline.generate(&Executor::Cpu, &request, &never, &mut tell))?;
    Ok((pictures.latents, said))
}

/// Stable Diffusion 1's tensors under a start that only a family of this test has, which also calls its pipeline
/// otherwise.
fn a_value() -> Result<(), Failed> {
    static NETWORKS: [Component; 1] = [Component {
        name: "painter",
        denoises: true,
        parts: &[("painter_model.", Layout::Unet)],
        alone: &[],
        lora: [&["painter."], &[]],
        unread: |_, _| Vec::new(),
        config: |network, _| serde_json::json!({"levels": network.count("down_blocks.")}),
        others: |_, _| Vec::new(),
    }];
    static PAINTERS: Family = Family {
        title: "Painters",
        components: &NETWORKS,
        side: |_| 7,
        files: |_| vec![("model_index.json", "an index".into())],
        ..*FAMILIES.known[FAMILIES.known.len() - 1]
    };
    static OWN: Families = Families { known: &[&PAINTERS], others: &[], loras: &[] };
    let whole = Kept::of("sd1")?.tensors();
    let renamed = |name: &str| name.replace("model.diffusion_model.", "painter_model.");
    let tensors: Tensors = whole.iter().map(|(name, tensor)| (renamed(name), tensor.clone())).collect();
    let folder = tempfile::tempdir()?;
    let [own, other] = ["own.safetensors", "other.safetensors"].map(|name| folder.path().join(name));
    write(&own, &tensors, DType::F16, &HashMap::new())?;
    let model = Model::open_among(&OWN, &own)?;
    assert_eq!(model.components(), ["painter"]);
    assert_eq!(model.text("painter/config.json")?, r#"{"levels":4,"sample_size":7}"#);
    assert_eq!(model.text("model_index.json")?, r#""an index""#);
    assert!(model.weights("painter")?.shape("conv_in.weight").is_some());
    write(&other, &whole, DType::F16, &HashMap::new())?;
    let error = Model::open_among(&OWN, &other).err().ok_or("it is recognised")?.to_string();
    ensure(error.contains("holds no network of Painters under a name that is known"), error)
}

/// The family's weights and metadata as a checkpoint of each format.
fn files(kept: &Kept, folder: &Path) -> Result<[Model; 2], Failed> {
    let [tensors, blocks] = ["model.safetensors", "model.gguf"].map(|name| folder.join(name));
    write(&tensors, &kept.tensors(), DType::F32, &kept.metadata)?;
    write_gguf_of(&blocks, &kept.tensors(), &kept.metadata, plain)?;
    Ok([Model::open(&tensors)?, Model::open(&blocks)?])
}

/// The folder has the `scheduler_config.json` that is published with the family.
fn samplers_agree(family: &str) -> Result<(), Failed> {
    let (kept, folder) = (Kept::of(family)?, tempfile::tempdir()?);
    let files = files(&kept, folder.path())?.map(Studio::open);
    let wanted = Studio::open(kept.write_folder(&folder.path().join("folder"))?)?;
    for sampler in samplers::names().map(Some).chain([None]) {
        let request = Request { sampler: sampler.map(String::from), ..Request::default() };
        let (wanted, _) = draw(&wanted, request.clone())?;
        for file in &files {
            let (found, _) = draw(file.as_ref().map_err(ToString::to_string)?, request.clone())?;
            assert!(found == wanted, "{}: the latents differ", sampler.unwrap_or("the default sampler"));
        }
    }
    Ok(())
}

/// A text encoder in transformers' names, under the beginning that single files put before them.
fn in_transformers_names(tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(name, tensor)| (format!("cond_stage_model.transformer.{name}"), tensor.clone())).collect()
}

/// The same in OpenCLIP's, with the three projections of attention in one.
fn in_open_clip_names(tensors: &Tensors) -> Tensors {
    let rules = [
        ("text_model.encoder.layers.", "transformer.resblocks."),
        ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
        ("text_model.embeddings.", ""),
        ("text_model.final_layer_norm.", "ln_final."),
        (".layer_norm1.", ".ln_1."),
        (".layer_norm2.", ".ln_2."),
        (".mlp.fc1.", ".mlp.c_fc."),
        (".mlp.fc2.", ".mlp.c_proj."),
        (".self_attn.out_proj.", ".attn.out_proj."),
    ];
    let mut renamed = Tensors::new();
    for (name, tensor) in tensors {
        let new = rules.iter().fold(name.clone(), |name, (old, new)| name.replace(old, new));
        if let Some((layer, kind)) = new.split_once(".self_attn.q_proj.") {
            let thirds = ["q", "k", "v"].map(|part| &tensors[&name.replace("q_proj", &format!("{part}_proj"))]);
            let dims = [&[3 * tensor.shape.batch()], &tensor.shape.dims()[1..]].concat();
            let data = thirds.iter().flat_map(|third| third.data.clone()).collect();
            let name = format!("cond_stage_model.model.{layer}.attn.in_proj_{kind}");
            renamed.insert(name, Tensor::new(Shape::new(dims), data));
        } else if !new.contains(".self_attn.") {
            renamed.insert(format!("cond_stage_model.model.{new}"), tensor.clone());
        }
    }
    renamed
}

/// Stable Diffusion 2's, with the last layer that only the original files have.
fn with_unread_layer(mut tensors: Tensors) -> Tensors {
    let (last, unread) = ("text_model.encoder.layers.22.", "text_model.encoder.layers.23.");
    let copies: Vec<_> = tensors.iter().filter(|(name, _)| name.starts_with(last)).collect();
    let copies: Tensors = copies.into_iter().map(|(name, t)| (name.replace(last, unread), t.clone())).collect();
    tensors.extend(copies);
    tensors
}

fn names_agree(family: &str) -> Result<(), Failed> {
    let (kept, folder) = (Kept::of(family)?, tempfile::tempdir()?);
    let (wanted, _) = draw(&Studio::open(kept.write_folder(folder.path())?)?, Request::default())?;
    let text = with_unread_layer(kept.component("text_encoder"));
    let ways: [fn(&Tensors) -> Tensors; 2] = [in_transformers_names, in_open_clip_names];
    for (way, rename) in ways.into_iter().enumerate() {
        let mut tensors = kept.tensors();
        tensors
            .retain(|name, _| !name.starts_with("cond_stage_model.") && !name.starts_with("conditioner.embedders.0."));
        tensors.extend(rename(&text));
        let metadata: Vec<_> = kept.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let (found, _) = draw(&Studio::open(opened(&tensors, &metadata)?)?, Request::default())?;
        assert!(found == wanted, "{}", ["transformers' names", "OpenCLIP's names"][way]);
    }
    Ok(())
}

fn spellings() -> Result<(), Failed> {
    let kept = Kept::of("sd1")?.tensors();
    for (metadata, wanted) in [
        (("modelspec.prediction_type", "v"), ("v_prediction", false)),
        (("modelspec.prediction_type", "v_prediction"), ("v_prediction", false)),
        (("modelspec.predict_key", "v"), ("v_prediction", false)),
        (("ss_v_parameterization", "True"), ("v_prediction", false)),
        (("ss_v_parameterization", "False"), ("epsilon", false)),
        (("v_prediction", "true"), ("v_prediction", false)),
        (("prediction_type", "v-prediction"), ("v_prediction", false)),
        (("modelspec.architecture", "stable-diffusion-v2-768-v"), ("v_prediction", false)),
        (("modelspec.prediction_type", "sample"), ("sample", false)),
        (("ss_zero_terminal_snr", "True"), ("epsilon", true)),
        // Drawn as if it were not there.
        (("modelspec.prediction_type", "wavelets"), ("epsilon", false)),
    ] {
        let (kind, zero_snr) = predicted(&kept, &[metadata])?;
        assert_eq!((kind.as_str(), zero_snr), wanted, "{metadata:?}");
    }
    Ok(())
}

fn given_prediction() -> Result<(), Failed> {
    let (kept, v) = (Kept::of("sd1")?.tensors(), [("modelspec.prediction_type", "v")]);
    let [unmarked, marked] = [&[][..], &v].map(|metadata| opened(&kept, metadata).and_then(Studio::open));
    let (unmarked, marked) = (unmarked?, marked?);
    let given = |prediction: &str| Request { prediction: Some(prediction.into()), ..Request::default() };
    let (wanted, _) = draw(&marked, Request::default())?;
    assert!(draw(&unmarked, given("v"))?.0 == wanted);
    assert!(draw(&unmarked, Request::default())?.0 != wanted);
    assert!(draw(&marked, given("epsilon"))?.0 == draw(&unmarked, Request::default())?.0);
    Ok(())
}

/// Of a checkpoint with the markers, and of a folder whose configuration says so.
fn zero_snr() -> Result<(), Failed> {
    let mut kept = Kept::of("sd1")?;
    let mut tensors = kept.tensors();
    tensors.extend(["v_pred", "ztsnr"].map(|name| (name.to_string(), Tensor::new([1], vec![0.0]))));
    let folder = tempfile::tempdir()?;
    let scheduler = kept.configs.get_mut("scheduler").and_then(|config| config.as_object_mut()).ok_or("none")?;
    scheduler.insert("rescale_betas_zero_snr".into(), true.into());
    scheduler.insert("timestep_spacing".into(), "trailing".into());
    scheduler.insert("prediction_type".into(), "v_prediction".into());
    for model in [opened(&tensors, &[])?, kept.write_folder(folder.path())?] {
        ensure(inspect(&model)?.ends_in_pure_noise, "inspect does not say so")?;
        let pipeline = Studio::open(model)?;
        let (by_default, said) = draw(&pipeline, Request::default())?;
        assert!(said.is_empty(), "{said:?}");
        let with = |sampler: &str| draw(&pipeline, Request { sampler: Some(sampler.into()), ..Request::default() });
        assert!(with("euler")?.0 == by_default);
        for ignoring in ["pndm", "heun", "lms", "dpm2", "dpm2-a", "dpm++2s", "deis"] {
            let (_, said) = with(ignoring)?;
            assert!(said.iter().any(|text| text.contains("pure noise") && text.contains(ignoring)), "{said:?}");
        }
    }
    Ok(())
}
