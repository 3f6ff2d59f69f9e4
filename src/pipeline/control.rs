//! ControlNets: networks that are shown a picture, and guide the UNet by it.

use super::Pipeline;
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::models::controlnet::{self, Config};
use crate::models::unet;
use crate::weights::{ComponentWeights, Model};

/// How one ControlNet guides a request's pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// What it is shown, for all pictures and all texts the same.
    pub image: Picture,
    /// What its residuals are multiplied by; 1 is what it was trained for.
    pub scale: f32,
    /// The part of the steps in which it guides, from 0 to 1 (diffusers' `control_guidance_start` and `_end`).
    pub start: f64,
    pub end: f64,
}

impl Control {
    /// Its scale at one of so many evaluations of the UNet. Where it does not guide, that is 0, as in diffusers.
    pub(super) fn scale_at(&self, index: usize, evaluations: usize) -> f32 {
        let share = |index: usize| index as f64 / evaluations as f64;
        if share(index) < self.start || share(index + 1) > self.end { 0.0 } else { self.scale }
    }

    fn check(&self) -> Result<()> {
        let Self { scale, start, end, .. } = self;
        if !scale.is_finite() {
            return Err(Error::usage(format!("--control-scale {scale} is not a number")));
        }
        if !(0.0 <= *start && start < end && *end <= 1.0) {
            let what = format!("--control-start {start} and --control-end {end}: expected 0 <= start < end <= 1");
            return Err(Error::usage(what));
        }
        Ok(())
    }
}

/// A ControlNet opened for a pipeline.
pub(super) struct ControlNet {
    pub model: Model,
    pub config: Config,
}

impl ControlNet {
    /// # Errors
    /// If the model has no ControlNet, or one that does not fit this UNet and its VAE's factor.
    pub fn open(model: Model, unet: &unet::Config, factor: usize) -> Result<Self> {
        let path = "controlnet/config.json";
        let place = model.path(path).display().to_string();
        if !model.has(path) {
            let what =
                "holds no ControlNet; give a folder whose config.json has _class_name ControlNetModel, or a file";
            return Err(Error::file(model.path(""), what));
        }
        let config = Config::from_json(&model.text(path)?, &place)?;
        match config.misfit(unet, factor) {
            None => Ok(Self { model, config }),
            Some(misfit) => {
                let what =
                    format!("{misfit}: it is for another family; give a ControlNet that was made for this model's");
                Err(Error::config(place, what))
            }
        }
    }
}

impl Pipeline {
    /// The weights of the ControlNets, by the paths of their parameters in the UNet's graph.
    pub(super) fn control_weights(&self) -> Result<Vec<(String, ComponentWeights)>> {
        let weights = |(index, control): (usize, &ControlNet)| {
            Ok((controlnet::path(index), control.model.weights("controlnet")?))
        };
        self.controls.iter().enumerate().map(weights).collect()
    }
}

/// Whether each ControlNet is told how to guide.
///
/// # Errors
/// If their numbers differ, or one is told what makes no sense.
pub(super) fn check(networks: &[ControlNet], controls: &[Control]) -> Result<()> {
    if networks.len() != controls.len() {
        let (networks, images) = (networks.len(), controls.len());
        return Err(Error::usage(format!("{networks} ControlNets and {images} pictures for them: give one for each")));
    }
    controls.iter().try_for_each(Control::check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(start: f64, end: f64) -> Control {
        let image = Picture { width: 1, height: 1, rgb: vec![0; 3], parameters: None };
        Control { image, scale: 0.5, start, end }
    }

    #[test]
    fn it_guides_in_its_part_of_the_steps() {
        let scales = |start, end| (0..4).map(|at| control(start, end).scale_at(at, 4)).collect::<Vec<_>>();
        assert_eq!(scales(0.0, 1.0), [0.5; 4]);
        assert_eq!(scales(0.25, 1.0), [0.0, 0.5, 0.5, 0.5]);
        assert_eq!(scales(0.0, 0.5), [0.5, 0.5, 0.0, 0.0]);
        assert_eq!(scales(0.3, 0.9), [0.0, 0.0, 0.5, 0.0]);
    }

    #[test]
    fn a_part_that_is_none_is_refused() {
        for (start, end) in [(0.5, 0.5), (0.7, 0.2), (-0.1, 1.0), (0.0, 1.1), (f64::NAN, 1.0)] {
            let error = control(start, end).check().unwrap_err().to_string();
            assert!(error.contains("--control-start") && error.contains("expected 0 <= start"), "{error}");
        }
        assert!(Control { scale: f32::NAN, ..control(0.0, 1.0) }.check().is_err());
    }

    #[test]
    fn a_picture_without_a_network_is_refused() {
        let error = check(&[], &[control(0.0, 1.0)]).unwrap_err().to_string();
        assert_eq!(error, "0 ControlNets and 1 pictures for them: give one for each");
    }
}
