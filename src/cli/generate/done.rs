//! Pictures as they are made: written and reported, or kept for a sheet.

use std::time::Instant;

use super::output::{Names, is_stdout};
use crate::cli::link::linked;
use crate::cli::{print, print_json};
use crate::error::Result;
use crate::image::{Format, Picture};
use crate::network::Executor;
use crate::systems::{Pictures, Request, Seconds};
use crate::weights::write_atomically;

/// One call of the studio, and where its pictures go.
pub(super) struct Job {
    pub request: Request,
    pub names: Names,
    /// Whether they have places in a sheet, and no files.
    pub grid: bool,
}

/// What was drawn so far.
pub(super) struct Done<'a> {
    pub executor: &'a Executor,
    pub json: bool,
    pub images: Vec<serde_json::Value>,
    pub seconds: Seconds,
    pub peak: u64,
    /// Those of a sheet.
    pub places: Vec<Picture>,
}

impl Done<'_> {
    /// Writes a picture of a job that has `begun` then, and reports it.
    pub(super) fn picture(&mut self, job: &Job, index: usize, picture: &Picture, begun: Instant) -> Result<()> {
        if job.grid {
            self.places.push(picture.clone());
            return Ok(());
        }
        let path = job.names.path(index);
        let file = picture.to_file(Format::of(&path).unwrap_or(Format::Png))?;
        if is_stdout(&path) {
            return print(&file);
        }
        write_atomically(&path, &file)?;
        let seed = job.request.seed_of(index);
        let variation = job.request.variation_of(index);
        if self.json {
            let Picture { width, height, .. } = picture;
            let prompt = job.request.shown_prompt.as_ref().unwrap_or(&job.request.prompt);
            let mut image = serde_json::json!({
                "path": path.display().to_string(), "seed": seed, "width": width, "height": height, "prompt": prompt,
            });
            if let Some(variation) = variation {
                image["variation_seed"] = variation.seed.into();
            }
            self.images.push(image);
            return Ok(());
        }
        let (seconds, executor) = (begun.elapsed().as_secs_f64(), self.executor.name());
        let varied = variation.map(|variation| format!(" varied by {}", variation.seed)).unwrap_or_default();
        let path = linked(&path);
        print(format!("{path}  seed {seed}{varied}, {seconds:.1} s on {executor}\n").as_bytes())
    }

    pub(super) fn add(&mut self, pictures: &Pictures) {
        self.seconds += pictures.seconds;
        self.peak = self.peak.max(pictures.peak_device_bytes);
    }

    pub(super) fn print_json(&self) -> Result<()> {
        print_json(&serde_json::json!({
            "images": self.images,
            "device": self.executor.name(),
            "dtype": self.executor.dtype().to_string(),
            "seconds": self.seconds,
            "peak_device_bytes": self.peak,
        }))
    }
}
