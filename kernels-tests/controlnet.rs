//! ControlNets against diffusers (`data/make_controlnet.py`): alone, in every form in which they are published, and in
//! pictures that they guide.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::gpu::Gpu;
use ornstein::image::decode;
use ornstein::lab::validate::{Selection, network};
use ornstein::models::controlnet::Config;
use ornstein::network::{Executor, IfWrong};
use ornstein::systems::{Control, Event, Pictures, Request, Studio};
use ornstein::tensor::{DType, Tensor};
use ornstein::weights::{Model, read_tensors, write_tensors};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::checkpoints::kept::{Kept, values};
use crate::checkpoints::{agree, checkpoint};
use crate::networks::{NETWORK, PICTURE, data, on_each_executor, within};
use crate::support::{ensure, on_gpu, test};

/// The last is one without transformers.
const NETWORKS: [&str; 4] = ["controlnet-sd1", "controlnet-sd2", "controlnet-sdxl", "controlnet-small"];
const PICTURES: [&str; 3] = ["sd1-one", "sd1-two", "sdxl-one"];

#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in NETWORKS {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            trials.push(test(format!("controlnet::{name} as one file in {dtype}"), move || one_file(name, dtype)));
        }
        trials.extend(on_each_executor(&format!("controlnet::{name} as a folder"), move |executor, kind| {
            let folder = tempfile::tempdir()?;
            agree(&folder_of(name, folder.path())?, name, executor, NETWORK[kind]).map(drop)
        }));
    }
    for name in PICTURES {
        trials.extend(on_each_executor(&format!("controlnet::picture {name}"), move |executor, kind| {
            let drawn = Case::of(name)?.draw(executor, |_| {})?;
            within("latents", &drawn.latents, &reference(name)?, PICTURE[kind])
        }));
    }
    trials.extend([
        test("controlnet::configurations_are_inferred", configurations_are_inferred),
        test("controlnet::tensors_in_diffusers_names_are_a_file_too", tensors_in_diffusers_names),
        test("controlnet::shards_are_read", shards_are_read),
        test("controlnet::a_missing_tensor_is_named_with_its_file", a_missing_tensor_is_named),
        test("controlnet::pictures_are_resized_as_pillow_does", pictures_are_resized),
        test("controlnet::a_scale_of_zero_changes_no_bit", a_scale_of_zero_changes_no_bit),
        test("controlnet::each_picture_of_a_batch_is_guided", each_picture_of_a_batch_is_guided),
        test("controlnet::networks_that_stay_draw_the_same_for_another_image", networks_that_stay),
        test("controlnet::one_for_another_family_is_refused", another_family_is_refused),
        test("controlnet::a_model_without_one_is_refused", a_model_without_one_is_refused),
        on_gpu("controlnet::validate_runs_every_node_of_one".into(), validate_runs_every_node),
        on_gpu("controlnet::the_node_that_overflows_is_named_and_the_picture_right".into(), an_overflow_is_named),
    ]);
    trials
}

fn one_file(name: &str, dtype: DType) -> Result<(), Failed> {
    let (_folder, path) = checkpoint(name, dtype)?;
    agree(&Model::open(&path)?, name, &Executor::Cpu, NETWORK[0]).map(drop)
}

/// The network's own folder.
fn folder_of(name: &str, at: &Path) -> Result<Model, Failed> {
    Kept::of(name)?.write_folder(at)?;
    Ok(Model::open(&at.join("controlnet"))?)
}

fn configurations_are_inferred() -> Result<(), Failed> {
    for name in NETWORKS {
        let (_folder, path) = checkpoint(name, DType::F16)?;
        let found = Config::from_json(&Model::open(&path)?.text("controlnet/config.json")?, "found")?;
        assert_eq!(found, Config::from_json(&Kept::of(name)?.configs["controlnet"].to_string(), "wanted")?, "{name}");
    }
    Ok(())
}

fn tensors_in_diffusers_names() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    folder_of(NETWORKS[2], folder.path())?;
    let alone = Model::open(&folder.path().join("controlnet/model.safetensors"))?;
    agree(&alone, NETWORKS[2], &Executor::Cpu, NETWORK[0]).map(drop)
}

/// The tensors of a network's folder.
fn stored(at: &Path) -> Result<BTreeMap<String, Tensor>, Failed> {
    let tensors = read_tensors(&at.join("controlnet/model.safetensors"))?;
    Ok(tensors.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

fn write<'a>(path: &Path, tensors: impl Iterator<Item = (&'a String, &'a Tensor)>) -> Result<(), Failed> {
    let tensors: Vec<_> = tensors.map(|(name, tensor)| (name.as_str(), tensor)).collect();
    Ok(write_tensors(path, &tensors)?)
}

fn shards_are_read() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let model = folder_of(NETWORKS[0], folder.path())?;
    let (tensors, at) = (stored(folder.path())?, folder.path().join("controlnet"));
    let half = |second: bool| tensors.iter().filter(move |(name, _)| (name.as_str() > "d") == second);
    let mut map = serde_json::Map::new();
    for (file, second) in [("s-1.safetensors", false), ("s-2.safetensors", true)] {
        write(&at.join(file), half(second))?;
        map.extend(half(second).map(|(name, _)| (name.clone(), file.into())));
    }
    std::fs::remove_file(at.join("model.safetensors"))?;
    let index = json!({"weight_map": map}).to_string();
    std::fs::write(at.join("diffusion_pytorch_model.safetensors.index.json"), index)?;
    agree(&model, NETWORKS[0], &Executor::Cpu, NETWORK[0]).map(drop)
}

fn a_missing_tensor_is_named() -> Result<(), Failed> {
    let case = Case::of("sd1-two")?;
    let path = case.folder.path().join("1/diffusion_pytorch_model.safetensors");
    let mut tensors: BTreeMap<_, _> = read_tensors(&path)?.into_iter().map(|(name, (_, t))| (name, t)).collect();
    tensors.remove("controlnet_mid_block.bias");
    write(&path, tensors.iter())?;
    let error = message(case.draw(&Executor::Cpu, |_| {}))?;
    let said =
        ["1 tensor missing: control.1.controlnet_mid_block.bias", "1/diffusion_pytorch_model.safetensors (control.1)"];
    ensure(said.iter().all(|part| error.contains(part)), error)
}

/// A picture that diffusers drew.
#[derive(Deserialize)]
struct Drawn {
    family: String,
    prompt: String,
    seed: u64,
    steps: usize,
    guidance: f32,
    width: usize,
    height: usize,
    controls: Vec<Guided>,
    configs: Vec<Value>,
}

#[derive(Deserialize)]
struct Guided {
    scale: f32,
    start: f64,
    end: f64,
}

fn reference(name: &str) -> Result<Tensor, Failed> {
    let mut tensors = read_tensors(&data("controlnet/pictures.safetensors"))?;
    Ok(tensors.remove(name).ok_or("there are no such latents")?.1)
}

/// The same picture to be drawn here, with the files that it takes.
struct Case {
    drawn: Drawn,
    /// `model`, and the ControlNets by their numbers.
    folder: TempDir,
}

fn picture() -> Result<ornstein::image::Picture, Failed> {
    Ok(decode("picture.png", &std::fs::read(data("controlnet/picture.png"))?)?)
}

impl Case {
    fn of(name: &str) -> Result<Self, Failed> {
        let mut all: BTreeMap<String, Drawn> =
            serde_json::from_reader(std::fs::File::open(data("controlnet/pictures.json"))?)?;
        let drawn = all.remove(name).ok_or("there is no such picture")?;
        let folder = tempfile::tempdir()?;
        Kept::of(&drawn.family)?.write_folder(&folder.path().join("model"))?;
        for (index, config) in drawn.configs.iter().enumerate() {
            write_controlnet(&folder.path().join(index.to_string()), index, config)?;
        }
        Ok(Self { drawn, folder })
    }

    fn control(&self, index: usize) -> PathBuf {
        self.folder.path().join(index.to_string())
    }

    fn pipeline(&self) -> Result<Studio, Failed> {
        let controls = (0..self.drawn.controls.len()).map(|index| Model::open(&self.control(index)));
        let pipeline = Studio::open(Model::open(&self.folder.path().join("model"))?)?;
        Ok(pipeline.with_controls(controls.collect::<Result<_, _>>()?)?)
    }

    fn request(&self) -> Result<Request, Failed> {
        let Drawn { prompt, seed, steps, guidance, width, height, controls, .. } = &self.drawn;
        let image = picture()?;
        let control = |guided: &Guided| {
            let Guided { scale, start, end } = *guided;
            Control { image: image.clone(), scale, start, end }
        };
        Ok(Request {
            prompt: prompt.clone(),
            seed: *seed,
            steps: Some(*steps),
            guidance: Some(*guidance),
            width: Some(*width),
            height: Some(*height),
            batch: 1,
            controls: controls.iter().map(control).collect(),
            ..Request::default()
        })
    }

    fn draw(&self, executor: &Executor, tell: impl FnMut(Event<'_>) + Send) -> Result<Pictures, Failed> {
        draw(&self.pipeline()?, executor, &self.request()?, tell)
    }
}

fn draw(
    pipeline: &Studio,
    executor: &Executor,
    request: &Request,
    mut tell: impl FnMut(Event<'_>) + Send,
) -> Result<Pictures, Failed> {
    Ok(pollster::block_on(pipeline.generate(executor, request, &AtomicBool::new(false), &mut tell))?)
}

/// A diffusers folder with the weights that the script gives the ControlNet of this number.
fn write_controlnet(at: &Path, index: usize, config: &Value) -> Result<(), Failed> {
    std::fs::create_dir_all(at)?;
    std::fs::write(at.join("config.json"), config.to_string())?;
    let wanted = Config::from_json(&config.to_string(), "config.json")?.graph(1, 8, 8, 1)?.wanted();
    let tensor = |(name, shape): (String, ornstein::tensor::Shape)| {
        let data = values(&format!("controlnet-{index}"), &name, shape.dims());
        (name, Tensor::new(shape, data))
    };
    let tensors: BTreeMap<String, Tensor> = wanted.into_iter().map(tensor).collect();
    write(&at.join("diffusion_pytorch_model.safetensors"), tensors.iter())
}

/// A ControlNet for the built-in model.
pub fn write_for_the_built_in_model(at: &Path) -> Result<(), Failed> {
    let mut config: Value = Model::builtin().json("unet/config.json")?;
    let keys = config.as_object_mut().ok_or("no object")?;
    for key in ["sample_size", "out_channels", "up_block_types"] {
        keys.remove(key);
    }
    keys.insert("_class_name".into(), "ControlNetModel".into());
    keys.insert("conditioning_embedding_out_channels".into(), json!([8, 8, 16]));
    write_controlnet(at, 0, &config)
}

fn message<T>(result: Result<T, Failed>) -> Result<String, Failed> {
    Ok(result.err().ok_or("it ran")?.message().ok_or("no message")?.to_string())
}

fn pictures_are_resized() -> Result<(), Failed> {
    let picture = picture()?;
    for name in ["image", "image-tall", "image-low"] {
        let wanted = reference(name)?;
        let [_, _, height, width] = wanted.shape.image()?;
        let found = picture.to_tensor(width, height).to_channels_first()?;
        let differ = found.data.iter().zip(&wanted.data).filter(|(found, wanted)| found != wanted).count();
        ensure(found.shape == wanted.shape && differ == 0, format!("{name}: {differ} values differ"))?;
    }
    Ok(())
}

fn a_scale_of_zero_changes_no_bit() -> Result<(), Failed> {
    let case = Case::of("sd1-one")?;
    let mut request = case.request()?;
    request.controls[0].scale = 0.0;
    let guided = draw(&case.pipeline()?, &Executor::Cpu, &request, |_| {})?;
    request.controls.clear();
    let model = Studio::open(Model::open(&case.folder.path().join("model"))?)?;
    let alone = draw(&model, &Executor::Cpu, &request, |_| {})?;
    ensure(guided.latents == alone.latents, "the latents differ")?;
    ensure(guided.latents != case.draw(&Executor::Cpu, |_| {})?.latents, "a scale of 0.8 changes nothing")
}

fn each_picture_of_a_batch_is_guided() -> Result<(), Failed> {
    let case = Case::of("sd1-one")?;
    let pipeline = case.pipeline()?;
    let mut request = Request { batch: 2, seed: case.drawn.seed - 1, ..case.request()? };
    let both = draw(&pipeline, &Executor::Cpu, &request, |_| {})?;
    request = case.request()?;
    let second = draw(&pipeline, &Executor::Cpu, &request, |_| {})?;
    let each = both.latents.data.len() / 2;
    let of_batch = Tensor::new(second.latents.shape.clone(), both.latents.data[each..].to_vec());
    ensure(of_batch == second.latents, "the second picture differs from the same one alone")
}

fn networks_that_stay() -> Result<(), Failed> {
    let case = Case::of("sd1-two")?;
    let (pipeline, first) = (case.pipeline()?, case.request()?);
    let mut loaded = pipeline.load(&Executor::Cpu);
    let mut other = first.clone();
    other.controls[1].image.rgb.iter_mut().for_each(|byte| *byte = 255 - *byte);
    let mut drawn = Vec::new();
    for request in [&first, &other, &first] {
        let never = AtomicBool::new(false);
        let kept = pollster::block_on(loaded.generate(request, &never, &mut |_| {}))?;
        let fresh = draw(&pipeline, &Executor::Cpu, request, |_| {})?;
        ensure(kept.latents == fresh.latents, "kept networks draw otherwise")?;
        drawn.push(kept.latents);
    }
    ensure(drawn[0] != drawn[1], "another image changes nothing")
}

fn another_family_is_refused() -> Result<(), Failed> {
    let (sd1, sdxl) = (Case::of("sd1-one")?, Case::of("sdxl-one")?);
    let refused = |model: &Case, control: PathBuf| {
        let pipeline = Studio::open(Model::open(&model.folder.path().join("model"))?)?;
        message(pipeline.with_controls(vec![Model::open(&control)?]).map_err(Failed::from))
    };
    let error = refused(&sd1, sdxl.control(0))?;
    let wanted = "0/config.json: is a ControlNet for models of another family (its cross_attention_dim is 192, the \
                  model's 128)";
    ensure(error.contains(wanted), error)?;
    let error = refused(&sdxl, sd1.control(0))?;
    ensure(error.contains("its cross_attention_dim is 128, the model's 192"), error)
}

fn a_model_without_one_is_refused() -> Result<(), Failed> {
    let case = Case::of("sd1-one")?;
    let model = case.folder.path().join("model");
    let opened = case.pipeline()?.with_controls(vec![Model::open(&model)?]);
    let error = message(opened.map_err(Failed::from))?;
    ensure(error.starts_with(&format!("{}", model.display())) && error.contains("holds no ControlNet"), error)
}

fn validate_runs_every_node(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let subjects = network::of_model(&folder_of(NETWORKS[2], folder.path())?)?;
    let selection = Selection::default();
    let reports = pollster::block_on(network::validate(gpu, subjects, &selection, None, &mut |_| {}))?;
    ensure(!reports.is_empty() && reports.iter().all(|report| report.network == "controlnet"), "another network ran")?;
    for report in &reports {
        let wrong = report.first_wrong().map(|row| format!("{row:?}"));
        ensure(report.passed() && report.outputs.len() == 7, format!("{wrong:?} {:?}", report.outputs))?;
    }
    Ok(())
}

fn an_overflow_is_named(gpu: &Arc<Gpu>) -> Result<(), Failed> {
    let case = Case::of("sd1-one")?;
    let path = case.control(0).join("diffusion_pytorch_model.safetensors");
    let mut tensors: BTreeMap<_, _> = read_tensors(&path)?.into_iter().map(|(name, (_, t))| (name, t)).collect();
    let scale = |tensor: &mut Tensor| tensor.data.iter_mut().for_each(|value| *value *= 262_144.0);
    // The norm behind it takes the scale away again.
    tensors.get_mut("mid_block.resnets.0.conv1.weight").map(scale).ok_or("no such tensor")?;
    write(&path, tensors.iter())?;
    let mut told = Vec::new();
    let executor = Executor::Gpu(Arc::clone(gpu), DType::F16, IfWrong::UseAnyway);
    let found = case.draw(&executor, |event| {
        if let Event::Warning(text) = event {
            told.push(text.to_string());
        }
    })?;
    let node = "unet.control.0.mid_block.resnets.0.conv1: its output overflows f16";
    ensure(told.iter().any(|text| text.contains(node)), format!("{told:?}"))?;
    within("latents", &found.latents, &case.draw(&Executor::Cpu, |_| {})?.latents, PICTURE[2])
}
