//! The options of `generate` that are ControlNets'.

use std::path::{Path, PathBuf};

use clap::Args;

use super::read_picture;
use crate::cli::lora::scaled;
use crate::error::{Error, Field, Result};
use crate::systems::Control;
use crate::systems::families::misplaced;
use crate::weights::Model;

#[derive(Debug, Args)]
pub(super) struct ControlArgs {
    /// A ControlNet that guides the picture: a diffusers folder or one file, for the model's family; may be given
    /// several times, and the options below then once for each, in the same order
    #[arg(long, value_name = "PATH")]
    control: Vec<PathBuf>,
    /// A picture that the ControlNet is shown, as its kind wants it (edges, depth, ..): resized to the picture's size
    /// by Lanczos' filter
    #[arg(long, value_name = "FILE")]
    control_image: Vec<PathBuf>,
    /// How strongly it guides [default: 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    control_scale: Vec<f32>,
    /// The share of the steps after which it begins to guide [default: 0]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    control_start: Vec<f64>,
    /// The share of the steps after which it ends [default: 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    control_end: Vec<f64>,
}

impl ControlArgs {
    /// # Errors
    /// If one cannot be opened.
    pub(super) fn models(&self) -> Result<Vec<Model>> {
        let open = |path: &PathBuf| match scaled(path.as_os_str()) {
            Some((file, scale)) if !path.exists() && Path::new(file).exists() => {
                let (own, file) = (path.display(), file.display());
                let what = format!(
                    "--control {own}: the scale is an option of its own: --control {file} --control-scale {scale}"
                );
                Err(Error::usage(what))
            }
            _ => Model::open(path).map_err(|error| misplaced(path, Field::Control, error)),
        };
        self.control.iter().map(open).collect()
    }

    /// # Errors
    /// If an option is not given as often as there are ControlNets, or a picture cannot be read.
    pub(super) fn controls(&self) -> Result<Vec<Control>> {
        let count = self.control.len();
        if self.control_image.len() != count {
            return Err(uneven("--control-image", self.control_image.len(), count));
        }
        let scales = one_each("--control-scale", &self.control_scale, count, 1.0)?;
        let starts = one_each("--control-start", &self.control_start, count, 0.0)?;
        let ends = one_each("--control-end", &self.control_end, count, 1.0)?;
        let control = |(index, path): (usize, &PathBuf)| {
            Ok(Control { image: read_picture(path)?, scale: scales[index], start: starts[index], end: ends[index] })
        };
        self.control_image.iter().enumerate().map(control).collect()
    }
}

/// What was given, or the default for all where nothing was.
fn one_each<T: Copy>(option: &str, given: &[T], count: usize, default: T) -> Result<Vec<T>> {
    match given.len() {
        0 => Ok(vec![default; count]),
        n if n == count => Ok(given.to_vec()),
        n => Err(uneven(option, n, count)),
    }
}

fn uneven(option: &str, given: usize, controls: usize) -> Error {
    if given == 0 {
        return Error::usage(format!(
            "--control is given without {option}: give the picture that it follows (edges, depth, a pose)"
        ));
    }
    if controls == 0 {
        return Error::usage(format!("{option} is for a ControlNet, and none is given; give --control"));
    }
    let times = |n| if n == 1 { "once".into() } else { format!("{n} times") };
    let (given, controls) = (times(given), times(controls));
    Error::usage(format!("{option} is given {given} and --control {controls}: give one for each, in the same order"))
}
