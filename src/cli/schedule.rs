//! `ornstein schedule`

use std::path::PathBuf;

use clap::Args;

use super::sigmas::SigmasArg;
use super::{flag, print, print_json, warn};
use crate::error::Result;
use crate::files::read_text_of;
use crate::samplers;
use crate::systems::settings::sampler_called;

#[derive(Debug, Args)]
pub(super) struct Schedule {
    #[arg(long, value_name = "NAME", help = super::sampler_help(""))]
    sampler: String,
    #[command(flatten)]
    schedule: SigmasArg,
    /// Denoising steps
    #[arg(long, value_name = "N")]
    steps: usize,
    /// A diffusers scheduler_config.json [default: the sampler's own defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl Schedule {
    pub(super) fn run(self) -> Result<()> {
        let config = match &self.config {
            Some(path) => samplers::Config::from_json(
                &read_text_of(path, "a scheduler_config.json")?,
                &path.display().to_string(),
            )?,
            None => samplers::Config::from_json("{}", "the sampler's defaults")?,
        };
        let (name, of_name) = sampler_called(&self.sampler)?;
        let (sigmas, spacing) = self.schedule.read()?;
        let config = config.with_spacing(spacing).with_sigmas(sigmas.or(of_name));
        let sampler = samplers::sampler(name, &config, self.steps)?;
        if let Some(warning) = samplers::warning(name, &config)? {
            warn(&warning.said(flag));
        }
        let (timesteps, sigmas) = (sampler.timesteps(), sampler.sigmas().unwrap_or_default());
        if self.json {
            return print_json(&serde_json::json!({ "timesteps": timesteps, "sigmas": sigmas }));
        }
        let row = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(" ");
        print(format!("timesteps {}\nsigmas    {}\n", row(timesteps), row(sigmas)).as_bytes())
    }
}
