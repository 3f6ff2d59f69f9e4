//! Samplers against diffusers, or where those have them against k-diffusion and ComfyUI: timesteps, sigmas, and
//! trajectories on a denoiser that anyone can compute.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use linkme::distributed_slice;
use ornstein::error::Field;
use ornstein::samplers::{Config, Sampler, Sigmas, names, sampler};
use safetensors::SafeTensors;
use serde::Deserialize;

/// The contract's relative error of a trajectory; sigmas are held to it too. Timesteps are exact.
const TOLERANCE: f64 = 1e-5;

/// One case of a `cases.json`; its tensors are `NAME.timesteps` and so on in the `cases.safetensors` beside it.
/// `data/make_samplers.py` and `data/make_published.py` tell more.
#[derive(Deserialize)]
struct Case {
    sampler: String,
    steps: usize,
    config: serde_json::Value,
    eta: Option<f64>,
    /// How sigmas are spread, where a request says it.
    schedule: Option<String>,
    /// Where there is a second denoiser, for the prediction without a text.
    guidance: Option<f32>,
    /// `None` where diffusers refuses the case.
    init_noise_sigma: Option<f64>,
}

struct Reference {
    timesteps: Vec<f32>,
    sigmas: Option<Vec<f32>>,
    start: Vec<f32>,
    noise: VecDeque<f32>,
    trajectory: Vec<f32>,
}

type Behaviour = fn() -> Result<(), Failed>;

/// One trial for each case in the folders of `data/samplers`, or in the folder that `ORNSTEIN_SAMPLER_CASES` names.
#[distributed_slice(crate::TRIALS)]
fn trials() -> Vec<Trial> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/data/samplers");
    let folders = match std::env::var_os("ORNSTEIN_SAMPLER_CASES") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => ["plain", "crossed", "schedules", "published"].map(|name| data.join(name)).to_vec(),
    };
    let behaviours: [(&str, Behaviour); 8] = [
        ("every_name_makes_one_from_an_empty_config", every_name_makes_one),
        ("an_unknown_name_is_an_error_that_lists_the_known", unknown_name),
        ("no_steps_are_refused", no_steps),
        ("more_steps_than_training_steps_are_refused", too_many_steps),
        ("values_that_are_not_built_are_refused", refused_values),
        ("keys_of_other_classes_are_ignored", ignored_keys),
        ("an_eta_that_is_no_share_is_refused", no_share),
        ("an_eta_is_refused_where_it_means_nothing", eta_without_meaning),
    ];
    let behaviours = behaviours.into_iter().map(|(name, test)| Trial::test(format!("samplers::{name}"), test));
    behaviours.chain(folders.iter().flat_map(|folder| cases(folder))).collect()
}

fn cases(folder: &Path) -> Vec<Trial> {
    let cases = fs::read_to_string(folder.join("cases.json")).expect("cases.json");
    let cases: BTreeMap<String, Case> = serde_json::from_str(&cases).expect("cases by name");
    let tensors: &'static [u8] = fs::read(folder.join("cases.safetensors")).expect("cases.safetensors").leak();
    let trial = |(name, case): (String, Case)| {
        Trial::test(format!("samplers::{name}"), move || match case.init_noise_sigma {
            Some(sigma) => matches_diffusers(&case, &read(tensors, &name)?, sigma),
            None => refused(&case),
        })
    };
    cases.into_iter().map(trial).collect()
}

fn read(bytes: &[u8], name: &str) -> Result<Reference, Failed> {
    let file = SafeTensors::deserialize(bytes)?;
    let tensor = |key: &str| -> Option<Vec<f32>> {
        let data = file.tensor(&format!("{name}.{key}")).ok()?;
        Some(data.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    Ok(Reference {
        timesteps: tensor("timesteps").ok_or("no timesteps")?,
        sigmas: tensor("sigmas"),
        start: tensor("start").ok_or("no start")?,
        noise: tensor("noise").unwrap_or_default().into(),
        trajectory: tensor("trajectory").ok_or("no trajectory")?,
    })
}

fn make(case: &Case) -> ornstein::error::Result<Sampler> {
    let config = Config::from_json(&case.config.to_string(), "case")?.with_eta(case.eta)?;
    let config = config.with_sigmas(case.schedule.as_deref().and_then(Sigmas::called));
    sampler(&case.sampler, &config, case.steps)
}

fn refused(case: &Case) -> Result<(), Failed> {
    match make(case) {
        Ok(_) => Err("diffusers refuses this, and it was taken".into()),
        Err(_) => Ok(()),
    }
}

fn matches_diffusers(case: &Case, reference: &Reference, init_noise_sigma: f64) -> Result<(), Failed> {
    let mut sampler = make(case)?;
    // Those of a schedule that diffusers does not have, and in the middle of dpm++sde's steps, lie between training
    // steps: at the last digit of an f32.
    let whole = case.schedule.as_deref().is_none_or(|name| name == "beta") && case.sampler != "dpm++sde";
    // EDM's are logarithms, which diffusers takes of f32.
    let edm = case.config["_class_name"].as_str().is_some_and(|class| class.starts_with("EDM"));
    let rounding = if edm {
        1e-6
    } else if whole {
        0.0
    } else {
        1e-7
    };
    compare("timesteps", sampler.timesteps(), &reference.timesteps, rounding)?;
    if let Some(sigmas) = &reference.sigmas {
        compare("sigmas", sampler.sigmas().ok_or("no sigmas")?, sigmas, TOLERANCE)?;
    }
    compare("init_noise_sigma", &[sampler.init_noise_sigma()], &[init_noise_sigma as f32], TOLERANCE)?;

    let mut draws = reference.noise.clone();
    let mut latents: Vec<f32> = reference.start.iter().map(|x| x * sampler.init_noise_sigma()).collect();
    let timesteps = sampler.timesteps().to_vec();
    for (index, wanted) in reference.trajectory.chunks_exact(latents.len()).enumerate() {
        let scale = sampler.input_scale(index);
        let strength = case.guidance.map(|guidance| guidance * sampler.guidance_factor(index));
        let output: Vec<f32> = latents.iter().map(|x| denoised(x * scale, timesteps[index], strength)).collect();
        let mut noise = |n: usize| draws.drain(..n.min(draws.len())).collect();
        latents = sampler.step(index, &output, &latents, &mut noise);
        compare(&format!("latents after evaluation {index}"), &latents, wanted, TOLERANCE)?;
    }
    if draws.is_empty() { Ok(()) } else { Err(format!("{} values of noise were not drawn", draws.len()).into()) }
}

/// The denoiser: 0.3 times the scaled input, plus a slow wave over the timesteps; guided so strongly from another on.
fn denoised(x: f32, timestep: f32, guidance: Option<f32>) -> f32 {
    let by_text = 0.3 * x + 0.05 * (timestep / 100.0).cos();
    let Some(guidance) = guidance else { return by_text };
    let without = 0.2 * x - 0.1 * (timestep / 50.0).sin();
    without + guidance * (by_text - without)
}

fn compare(what: &str, found: &[f32], wanted: &[f32], tolerance: f64) -> Result<(), Failed> {
    if found.len() != wanted.len() {
        return Err(format!("{what}: {} values, not {}", found.len(), wanted.len()).into());
    }
    let square = |x: f64| x * x;
    let error: f64 = found.iter().zip(wanted).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = wanted.iter().map(|x| square(f64::from(*x))).sum();
    let relative = (error / norm.max(f64::MIN_POSITIVE)).sqrt();
    if error == 0.0 || relative <= tolerance {
        return Ok(());
    }
    Err(format!("{what}: relative error {relative:.2e} is over {tolerance:.0e}").into())
}

fn every_name_makes_one() -> Result<(), Failed> {
    for name in names() {
        for steps in [4, 25, 50] {
            let mut sampler = sampler(name, &Config::default(), steps)?;
            let timesteps = sampler.timesteps().to_vec();
            let fits = timesteps.len() >= steps && timesteps.iter().all(|t| (0.0..1000.0).contains(t));
            let finite = sampler.init_noise_sigma() > 0.0
                && (0..timesteps.len()).all(|index| sampler.input_scale(index).is_finite());
            if !fits || !finite {
                return Err(format!("{name} with {steps} steps: {timesteps:?}").into());
            }
            let mut latents = vec![sampler.init_noise_sigma(), -0.5, 0.0];
            for index in 0..timesteps.len() {
                latents = sampler.step(index, &[0.1, -0.1, 0.2], &latents, &mut |n| vec![0.5; n]);
            }
            if latents.iter().any(|x| !x.is_finite()) {
                return Err(format!("{name} with {steps} steps ends in {latents:?}").into());
            }
        }
    }
    Ok(())
}

fn error_of(name: &str, config: &str, steps: usize) -> Result<String, Failed> {
    match sampler(name, &Config::from_json(config, "scheduler_config.json")?, steps) {
        Ok(_) => Err(format!("{name} took {config} with {steps} steps").into()),
        Err(error) => Ok(error.to_string()),
    }
}

fn unknown_name() -> Result<(), Failed> {
    let error = error_of("nonsense", "{}", 20)?;
    let complete = names().all(|name| error.contains(name));
    if complete && error.contains("nonsense") { Ok(()) } else { Err(error.into()) }
}

fn no_steps() -> Result<(), Failed> {
    for name in names() {
        let error = sampler(name, &Config::default(), 0).err().ok_or(name)?;
        if !matches!(error, ornstein::error::Error::Usage(_)) {
            return Err(format!("{name}: {error}").into());
        }
    }
    Ok(())
}

fn too_many_steps() -> Result<(), Failed> {
    for name in names() {
        let error = error_of(name, r#"{"num_train_timesteps": 100, "original_inference_steps": 50}"#, 101)?;
        if !error.contains("num_train_timesteps: 100") {
            return Err(format!("{name}: {error}").into());
        }
    }
    Ok(())
}

fn refused_values() -> Result<(), Failed> {
    for (name, key, value) in [
        ("ddim", "prediction_type", "\"flow\""),
        ("euler-a", "prediction_type", "\"sample\""),
        ("ddim", "beta_schedule", "\"laplace\""),
        ("ddim", "timestep_spacing", "\"even\""),
        ("ddim", "timestep_spacing", "null"),
        ("ddim", "steps_offset", "960"),
        ("pndm", "steps_offset", "960"),
        ("pndm", "steps_offset", "-1"),
        ("ddim", "clip_sample", "1"),
        ("ddpm", "variance_type", "\"learned_range\""),
        ("euler", "interpolation_type", "\"log_linear\""),
        ("euler", "final_sigmas_type", "\"one\""),
        ("dpm++2m", "algorithm_type", "\"rk4\""),
        ("dpm++2m", "solver_type", "\"rk4\""),
        ("dpm++2m", "solver_order", "0"),
        ("dpm++2m", "use_flow_sigmas", "true"),
        ("dpm++2m", "variance_type", "\"learned\""),
        ("dpm++2s", "solver_order", "4"),
        ("unipc", "solver_p", "{}"),
        ("lcm", "original_inference_steps", "10"),
        ("lcm", "original_inference_steps", "2000"),
        ("tcd", "original_inference_steps", "10"),
        ("tcd", "trained_betas", "[0.1, 0.2]"),
        ("tcd", "prediction_type", "\"flow\""),
        ("heun", "num_train_timesteps", "0"),
        ("heun", "num_train_timesteps", "1e18"),
        ("lms", "trained_betas", "[0.1, \"a\"]"),
    ] {
        let error = error_of(name, &format!("{{\"{key}\": {value}}}"), 25)?;
        if !error.starts_with("scheduler_config.json: ") || !error.contains(key) {
            return Err(format!("{name}, {key}: {error}").into());
        }
    }
    Ok(())
}

fn ignored_keys() -> Result<(), Failed> {
    let config = Config::from_json(r#"{"use_karras_sigmas": true, "solver_type": "rk4", "eta": 3}"#, "x")?;
    let plain = sampler("euler-a", &Config::default(), 10)?;
    let other = sampler("euler-a", &config, 10)?;
    if plain.sigmas() == other.sigmas() { Ok(()) } else { Err("a key that the class lacks counted".into()) }
}

fn no_share() -> Result<(), Failed> {
    for eta in [-0.1, 1.5, f64::NAN] {
        let error = Config::default().with_eta(Some(eta)).err().ok_or("it was taken")?.to_string();
        if !error.starts_with("eta ") {
            return Err(error.into());
        }
    }
    Ok(())
}

fn eta_without_meaning() -> Result<(), Failed> {
    let config = Config::default().with_eta(Some(0.5))?;
    for name in names() {
        let (takes, made) = (["ddim", "tcd"].contains(&name), sampler(name, &config, 4));
        match made {
            Ok(_) if takes => {}
            Err(ornstein::error::Error::Usage(error)) if !takes && error.field == Some(Field::Eta) => {}
            _ => return Err(name.into()),
        }
    }
    Ok(())
}
