//! The table of samplers: what each is called, what it can do, and which one a model's file means.

use super::betas::{Defaults, EXACT, FLOORED, IGNORED, Training, ZeroSnr};
use super::config::{Config, ZERO_SNR};
use super::prediction::FOR_ZERO_SNR;
use super::{
    Sampler, ddim, ddpm, deis, dpm2, dpmpp_2m, dpmpp_2s, dpmpp_3m_sde, dpmpp_sde, er_sde, euler, euler_a, euler_cfg_pp,
    heun, ipndm, lcm, lms, pndm, res_multistep, tcd, unipc,
};
use crate::error::{Error, Field, Message, Remedy, Result, instead};

/// A sampler: what it is called, and what it can do.
pub(super) struct Row {
    /// In a request.
    pub name: &'static str,
    /// In AUTOMATIC1111's web UI, or in one that was made of it, and in its pictures' parameters.
    pub web_ui: &'static str,
    /// In diffusers, where that has it.
    pub class: Option<&'static str>,
    /// In diffusers, for models of EDM's noise.
    pub edm_class: Option<&'static str>,
    /// Whether it draws with those.
    pub takes_edm: bool,
    /// Its class's noise schedule, and what that does with one that ends in pure noise.
    pub defaults: &'static Defaults,
    /// Whether it takes [`Config::with_eta`].
    pub takes_eta: bool,
    /// Whether it takes [`Config::with_spacing`], or spaces its timesteps in its own way.
    pub takes_spacing: bool,
    /// Whether its sigmas may be spread.
    pub spreads: bool,
    /// Evaluations of a step.
    pub order: usize,
    /// The guidance that it is made for, where it steps from the prediction without a text.
    pub guidance: Option<f32>,
    pub build: Build,
}

type Build = fn(&Config, &Training, usize) -> Result<Sampler>;

impl Row {
    const fn new(names: [&'static str; 3], defaults: &'static Defaults, build: Build) -> Self {
        let [name, web_ui, class] = names;
        Self { class: Some(class), ..Self::of_sigmas([name, web_ui], defaults, build) }
    }

    /// One of k-diffusion or ComfyUI.
    const fn of_sigmas(names: [&'static str; 2], defaults: &'static Defaults, build: Build) -> Self {
        let [name, web_ui] = names;
        Self {
            name,
            web_ui,
            class: None,
            edm_class: None,
            takes_edm: false,
            defaults,
            takes_eta: false,
            takes_spacing: true,
            spreads: false,
            order: 1,
            guidance: None,
            build,
        }
    }

    const fn with_eta(self) -> Self {
        Self { takes_eta: true, ..self }
    }

    /// For models of EDM's noise, as that class.
    const fn with_edm(self, class: Option<&'static str>) -> Self {
        Self { takes_edm: true, edm_class: class, ..self }
    }

    const fn with_own_spacing(self) -> Self {
        Self { takes_spacing: false, ..self }
    }

    const fn with_spread_sigmas(self) -> Self {
        Self { spreads: true, ..self }
    }

    const fn with_guidance(self, guidance: f32) -> Self {
        Self { guidance: Some(guidance), ..self }
    }

    const fn of_second_order(self) -> Self {
        Self { order: 2, ..self }
    }

    /// Makes one, for this many steps.
    pub fn sampler(&self, config: &Config, steps: usize) -> Result<Sampler> {
        (self.build)(config, &Training::new(config, self.defaults)?, steps)
    }

    /// Whether its class pays no heed to a schedule that ends in pure noise.
    pub fn ignores_zero_snr(&self) -> bool {
        self.defaults.zero_snr == ZeroSnr::Ignored
    }
}

const EDM_MULTISTEP: &str = "EDMDPMSolverMultistepScheduler";

/// One row a sampler.
pub(super) const TABLE: &[Row] = &[
    Row::new(["ddpm", "DDPM", "DDPMScheduler"], &ddpm::DEFAULTS, ddpm::new),
    Row::new(["ddim", "DDIM", "DDIMScheduler"], &EXACT, ddim::new).with_eta(),
    Row::new(["pndm", "PLMS", "PNDMScheduler"], &IGNORED, pndm::new),
    Row::new(["lms", "LMS", "LMSDiscreteScheduler"], &IGNORED, lms::new).with_spread_sigmas(),
    Row::new(["euler", "Euler", "EulerDiscreteScheduler"], &FLOORED, euler::new)
        .with_spread_sigmas()
        .with_edm(Some("EDMEulerScheduler")),
    Row::new(["euler-a", "Euler a", "EulerAncestralDiscreteScheduler"], &FLOORED, euler_a::new).with_spread_sigmas(),
    Row::new(["heun", "Heun", "HeunDiscreteScheduler"], &heun::DEFAULTS, heun::new)
        .with_spread_sigmas()
        .of_second_order(),
    Row::new(["dpm2", "DPM2", "KDPM2DiscreteScheduler"], &heun::NARROW, dpm2::new)
        .with_spread_sigmas()
        .of_second_order(),
    Row::new(["dpm2-a", "DPM2 a", "KDPM2AncestralDiscreteScheduler"], &heun::NARROW, dpm2::ancestral)
        .with_spread_sigmas()
        .of_second_order(),
    Row::new(["dpm++2m", "DPM++ 2M", "DPMSolverMultistepScheduler"], &FLOORED, |c, t, n| dpmpp_2m::new(c, t, n, false))
        .with_spread_sigmas()
        .with_edm(Some(EDM_MULTISTEP)),
    Row::new(["dpm++2m-sde", "DPM++ 2M SDE", "DPMSolverMultistepScheduler"], &FLOORED, |c, t, n| {
        dpmpp_2m::new(c, t, n, true)
    })
    .with_spread_sigmas()
    .with_edm(Some(EDM_MULTISTEP)),
    Row::new(["dpm++2s", "DPM++ 2S", "DPMSolverSinglestepScheduler"], &IGNORED, dpmpp_2s::new)
        .with_spread_sigmas()
        .with_own_spacing(),
    Row::new(["dpm++sde", "DPM++ SDE", "DPMSolverSDEScheduler"], &dpmpp_sde::DEFAULTS, dpmpp_sde::new)
        .with_spread_sigmas()
        .of_second_order(),
    Row::of_sigmas(["dpm++3m-sde", "DPM++ 3M SDE"], &FLOORED, dpmpp_3m_sde::new).with_spread_sigmas().with_edm(None),
    Row::new(["deis", "DEIS", "DEISMultistepScheduler"], &IGNORED, deis::new).with_spread_sigmas(),
    Row::new(["unipc", "UniPC", "UniPCMultistepScheduler"], &FLOORED, unipc::new).with_spread_sigmas(),
    Row::of_sigmas(["ipndm", "IPNDM"], &FLOORED, ipndm::new).with_spread_sigmas().with_edm(None),
    Row::of_sigmas(["res-multistep", "Res Multistep"], &FLOORED, res_multistep::new)
        .with_spread_sigmas()
        .with_edm(None),
    Row::of_sigmas(["er-sde", "ER SDE"], &FLOORED, er_sde::new).with_spread_sigmas().with_edm(None),
    Row::of_sigmas(["euler-cfg++", "Euler CFG++"], &FLOORED, euler_cfg_pp::new)
        .with_spread_sigmas()
        .with_edm(None)
        .with_guidance(1.0),
    Row::new(["lcm", "LCM", "LCMScheduler"], &lcm::DEFAULTS, lcm::new).with_own_spacing(),
    Row::new(["tcd", "TCD", "TCDScheduler"], &lcm::DEFAULTS, tcd::new).with_eta().with_own_spacing(),
];

/// The names of samplers.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.name)
}

pub(super) fn find(name: &str) -> Result<&'static Row> {
    TABLE
        .iter()
        .find(|row| row.name == name)
        .ok_or_else(|| Error::usage(format!("no sampler is called {name:?}; {}", instead(name, names()))))
}

/// What AUTOMATIC1111's web UI calls the sampler of that name; one that is not in the table keeps its own.
pub fn web_ui_name(name: &str) -> &str {
    find(name).map_or(name, |row| row.web_ui)
}

/// The guidance that the sampler of that name is made for, where it steps from the prediction without a text: such a
/// sampler needs that prediction whatever the guidance is.
pub fn own_guidance(name: &str) -> Option<f32> {
    find(name).ok()?.guidance
}

/// What is to be said of drawing with the sampler of that name, if anything: that its class ignores a schedule's end
/// in pure noise, as diffusers' does, which leaves very dark and very bright pictures out of its reach.
///
/// # Errors
/// If there is no such sampler, or the config's key for it is neither true nor false.
pub fn warning(name: &str, config: &Config) -> Result<Option<Message>> {
    if !config.zero_snr()? || !find(name)?.ignores_zero_snr() {
        return Ok(None);
    }
    let others = TABLE.iter().filter(|row| !row.ignores_zero_snr());
    let what = format!(
        "the model's noise schedule ends in pure noise ({ZERO_SNR}), which the sampler {name} ignores: dark and bright \
         pictures come out grey"
    );
    let others = others.map(|row| Remedy::set(Field::Sampler, row.name));
    Ok(Some(Message::from(what).remedies(others)))
}

pub(super) fn is_class(class: &str) -> bool {
    TABLE.iter().any(|row| [row.class, row.edm_class].contains(&Some(class)))
}

impl Config {
    /// The name of the sampler that the file was written for, by its `_class_name` and `algorithm_type`; of one that
    /// honours the file's `rescale_betas_zero_snr`, where that class does not.
    ///
    /// # Errors
    /// If the file names no class, one that is not built, or is for models that no sampler here draws with.
    pub fn default_sampler(&self) -> Result<&'static str> {
        self.check_noise(is_class)?;
        let class = self.class();
        let stochastic = self.word("algorithm_type", "")?.is_some_and(|word| word.starts_with("sde-"));
        let of_class = || TABLE.iter().filter(|row| class.is_some() && [row.class, row.edm_class].contains(&class));
        let row = of_class().find(|row| row.name.ends_with("-sde") == stochastic).or(of_class().next());
        let ends_in_noise = self.zero_snr()?;
        let name = |row: &Row| if ends_in_noise && row.ignores_zero_snr() { FOR_ZERO_SNR } else { row.name };
        row.map(name).ok_or_else(|| {
            let known = names().collect::<Vec<_>>().join(", ");
            self.refused("_class_name", class.unwrap_or("missing"), &format!("is not built; built are: {known}"))
                .remedies([Remedy::Other(Field::Sampler)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let mut all: Vec<_> = names().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), TABLE.len());
    }

    #[test]
    fn every_sampler_is_its_own_classes_default() {
        for (row, class) in TABLE.iter().filter_map(|row| Some((row, row.class?))) {
            let algorithm = if row.name.ends_with("-sde") { "sde-dpmsolver++" } else { "dpmsolver++" };
            let text = format!(r#"{{"_class_name": "{}", "algorithm_type": "{algorithm}"}}"#, class);
            assert_eq!(Config::from_json(&text, "x").unwrap().default_sampler().unwrap(), row.name);
        }
    }
}
