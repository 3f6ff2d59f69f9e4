//! Pictures that begin with a picture, and SDXL's refiner, against diffusers (`data/make_refiner.py`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::image::{Picture, decode};
use ornstein::inspect::inspect;
use ornstein::network::Executor;
use ornstein::systems::{Pictures, Request, Studio};
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::{Model, read_tensors};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::checkpoints::checkpoint;
use crate::checkpoints::kept::Kept;
use crate::networks::{PICTURE, data, on_each_executor, within};
use crate::support::{ensure, test};

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in cases().into_keys() {
        let title = format!("refiner::picture {name}");
        trials.extend(on_each_executor(&title, move |executor, kind| {
            within("latents", &draw(&name, executor, |_| {})?.latents, &reference(&name)?, PICTURE[kind])
        }));
    }
    trials.extend([
        test("refiner::each_picture_of_a_batch_is_its_own", each_picture_is_its_own),
        test("refiner::a_picture_decides_the_size_unless_one_is_given", the_picture_decides),
        test("refiner::what_is_loaded_is_what_the_parts_say", parts_are_loaded),
        test("refiner::a_refiner_refines_a_picture_and_says_so", a_refiner_refines),
        test("refiner::what_a_refiner_and_a_picture_do_not_go_with_is_said", refused),
        test("refiner::one_file_is_recognised", one_file),
        test("refiner::the_index_says_whether_a_score_is_taken", the_index_decides),
    ]);
    trials
}

/// What diffusers' pipelines were called with: the prompt, seed, picture and size are the same for all.
#[derive(Deserialize)]
struct Case {
    /// What starts from a picture; without one the base model and its refiner draw one after the other.
    model: Option<String>,
    scheduler: Value,
    steps: usize,
    strength: Option<f64>,
    start: Option<f64>,
    guidance: Option<f32>,
    eta: Option<f64>,
    negative: Option<String>,
    batch: Option<usize>,
}

fn cases() -> BTreeMap<String, Case> {
    let text = std::fs::read_to_string(data("refiner/pictures.json")).expect("pictures.json can be read");
    serde_json::from_str(&text).expect("pictures.json can be understood")
}

fn reference(name: &str) -> Result<Tensor, Failed> {
    let mut tensors = read_tensors(&data("refiner/pictures.safetensors"))?;
    Ok(tensors.remove(name).ok_or("there are no such latents")?.1)
}

fn picture() -> Result<Picture, Failed> {
    Ok(decode("picture.png", &std::fs::read(data("refiner/picture.png"))?)?)
}

/// The small model of this family with a schedule, as a folder.
fn model(family: &str, scheduler: &Value, at: &Path) -> Result<Model, Failed> {
    let mut kept = Kept::of(family)?;
    kept.configs.insert("scheduler".into(), scheduler.clone());
    std::fs::create_dir(at)?;
    kept.write_folder(at)?;
    let index = if family == "sdxl-refiner" {
        json!({"_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": true,
               "force_zeros_for_empty_prompt": false})
    } else {
        json!({"force_zeros_for_empty_prompt": true})
    };
    std::fs::write(at.join("model_index.json"), index.to_string())?;
    Ok(Model::open(at)?)
}

fn studio(case: &Case, at: &Path) -> Result<Studio, Failed> {
    if let Some(family) = &case.model {
        return Ok(Studio::open(model(family, &case.scheduler, &at.join("model"))?)?);
    }
    let [base, refiner] = ["sdxl", "sdxl-refiner"].map(|family| model(family, &case.scheduler, &at.join(family)));
    Ok(Studio::open(base?)?.with_refiner(refiner?)?)
}

fn request(case: &Case) -> Result<Request, Failed> {
    let size = |side| case.start.map(|_| side);
    Ok(Request {
        prompt: "a photo of a cat".into(),
        negative: case.negative.clone(),
        seed: 7,
        batch: case.batch.unwrap_or(1),
        width: size(32),
        height: size(40),
        steps: Some(case.steps),
        guidance: Some(case.guidance.unwrap_or(5.0)),
        eta: case.eta,
        init_image: case.strength.map(|_| picture()).transpose()?,
        strength: case.strength,
        refiner_start: case.start,
        ..Request::default()
    })
}

fn made(studio: &Studio, request: &Request, executor: &Executor) -> Result<Pictures, Failed> {
    Ok(pollster::block_on(studio.generate(executor, request, &AtomicBool::new(false), &mut |_| {}))?)
}

fn draw(name: &str, executor: &Executor, change: impl FnOnce(&mut Request)) -> Result<Pictures, Failed> {
    let (folder, case) = (tempfile::tempdir()?, cases().remove(name).ok_or("there is no such picture")?);
    let mut request = request(&case)?;
    change(&mut request);
    made(&studio(&case, folder.path())?, &request, executor)
}

fn each_picture_is_its_own() -> Result<(), Failed> {
    for name in ["both-ddim-eta", "sdxl-refiner-ddim-eta"] {
        let both = draw(name, &Executor::Cpu, |_| {})?;
        let one = draw(name, &Executor::Cpu, |request| (request.batch, request.seed) = (1, 8))?;
        ensure(one.pictures[0].rgb == both.pictures[1].rgb, "the second picture of the batch is another")?;
    }
    Ok(())
}

fn the_picture_decides() -> Result<(), Failed> {
    let name = "sdxl-refiner-euler";
    // 38 x 45 pixels, of which whole latents are kept.
    let own = draw(name, &Executor::Cpu, |_| {})?;
    assert_eq!((own.settings.width, own.settings.height), (36, 44));
    let parameters = own.pictures[0].parameters.clone().unwrap_or_default();
    ensure(parameters.contains("Denoising strength: 0.5"), parameters)?;
    let given = draw(name, &Executor::Cpu, |request| (request.width, request.height) = (Some(24), Some(32)))?;
    assert_eq!((given.pictures[0].width, given.pictures[0].height), (24, 32));
    Ok(())
}

fn parts_are_loaded() -> Result<(), Failed> {
    for (name, wanted) in [
        ("both-euler", &["text encoder", "text encoder 2", "refiner's text encoder 2", "UNet", "refiner's UNet"][..]),
        ("sd1-pndm", &["text encoder", "VAE's encoder", "UNet"]),
    ] {
        let (folder, case) = (tempfile::tempdir()?, cases().remove(name).ok_or("there is no such picture")?);
        let (studio, request) = (studio(&case, folder.path())?, request(&case)?);
        let parts: Vec<_> = studio.parts(&Executor::Cpu, &request)?.into_iter().map(|part| part.what).collect();
        let spans = made(&studio, &request, &Executor::Cpu)?.spans;
        let loaded: Vec<_> = spans.iter().filter_map(|span| span.what.strip_prefix("loading the ")).collect();
        assert_eq!(loaded, parts);
        ensure(wanted.iter().all(|name| parts.iter().any(|part| part == name)), format!("{parts:?}"))?;
    }
    Ok(())
}

fn refusal(name: &str, change: impl FnOnce(&mut Request)) -> Result<String, Failed> {
    let drawn = draw(name, &Executor::Cpu, change);
    drawn.err().and_then(|failed| failed.message().map(String::from)).ok_or_else(|| "nothing was refused".into())
}

fn a_refiner_refines() -> Result<(), Failed> {
    let error = refusal("sdxl-refiner-euler", |request| (request.init_image, request.strength) = (None, None))?;
    ensure(error.contains("draws none from a text alone") && error.ends_with("give init image"), error)
}

fn refused() -> Result<(), Failed> {
    type Change = fn(&mut Request);
    let cases: [(&str, Change, &str); 7] = [
        ("both-euler", |r| r.refiner_start = Some(1.0), "refiner start 1 leaves none of 10 steps"),
        ("both-euler", |r| r.refiner_start = Some(-0.5), "refiner start -0.5 does not lie from 0 to 1"),
        ("both-euler", |r| r.strength = Some(0.5), "strength is that of the noise on a picture to start from"),
        ("sd1-lms", |r| r.strength = Some(0.0), "strength 0 leaves none of 9 steps"),
        ("sd1-pndm", |r| r.refiner_start = Some(0.5), "refiner start is not for a StableDiffusionPipeline"),
        ("sdxl-euler", |r| r.refiner_start = Some(0.5), "refiner start is for a model with a refiner; give refiner"),
        ("sdxl-euler", |r| r.noise_level = Some(5), "noise level is not for a StableDiffusionXLPipeline"),
    ];
    for (name, change, part) in cases {
        let error = refusal(name, change)?;
        ensure(error.contains(part), error)?;
    }
    let error = refusal("both-euler", |request| request.init_image = picture().ok())?;
    ensure(error.contains("leave out init image"), error)?;
    let folder = tempfile::tempdir()?;
    let scheduler = json!({"_class_name": "EulerDiscreteScheduler"});
    let [base, other] = ["sdxl", "sd1"].map(|family| model(family, &scheduler, &folder.path().join(family)));
    let refined = Studio::open(base?)?.with_refiner(other?);
    let error = refined.err().map(|error| error.to_string()).unwrap_or_default();
    ensure(error.contains("is not of Stable Diffusion XL"), error)
}

fn one_file() -> Result<(), Failed> {
    let (_folder, path) = checkpoint("sdxl-refiner", DType::F16)?;
    let model = Model::open(&path)?;
    let found = inspect(&model)?;
    assert_eq!(found.family, Some("Stable Diffusion XL's refiner"));
    assert_eq!(found.class.as_deref(), Some("StableDiffusionXLImg2ImgPipeline"));
    let studio = Studio::open(model)?;
    let request = Request { init_image: Some(picture()?), ..Request::default() };
    let settings = studio.settings(&request)?;
    assert_eq!((settings.steps, settings.guidance, settings.sampler.as_str()), (50, 5.0, "euler"));
    Ok(())
}

fn the_index_decides() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let class = |family: &str, scored: bool| -> Result<&'static str, Failed> {
        let at = folder.path().join(format!("{family} {scored}"));
        model(family, &json!({"_class_name": "EulerDiscreteScheduler"}), &at)?;
        std::fs::write(at.join("model_index.json"), json!({"requires_aesthetics_score": scored}).to_string())?;
        Ok(Studio::open(Model::open(&at)?)?.row().classes[0])
    };
    assert_eq!(class("sdxl", true)?, "StableDiffusionXLImg2ImgPipeline");
    assert_eq!(class("sdxl", false)?, "StableDiffusionXLPipeline");
    let error = class("sdxl-refiner", false).err().and_then(|failed| failed.message().map(String::from));
    let error = error.unwrap_or_default();
    ensure(error.contains("requires_aesthetics_score is false"), error)
}
