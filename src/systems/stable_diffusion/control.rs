//! ControlNets: networks that are shown a picture, and guide the UNet by it.

use crate::error::{Error, Field, Result};
use crate::models::controlnet::{Config, image_input, scale_input};
use crate::models::unet;
use crate::systems::canvas::guiding;
use crate::systems::families::misplaced;
use crate::systems::request::{Control, Request};
use crate::systems::settings::Settings;
use crate::tensor::Tensor;
use crate::weights::Model;

/// Reads a ControlNet's configuration.
///
/// # Errors
/// If the model has no ControlNet, or one that does not fit this UNet and its VAE's factor.
pub(super) fn open(model: &Model, unet: &unet::Config, factor: usize) -> Result<Config> {
    let path = "controlnet/config.json";
    let place = model.path(path).display().to_string();
    if !model.has(path) {
        let what = "holds no ControlNet; give a folder whose config.json has _class_name ControlNetModel, or a file";
        return Err(misplaced(&model.path(""), Field::Control, Error::file(model.path(""), what)));
    }
    let config = Config::from_json(&model.text(path)?, &place)?;
    match config.misfit(unet, factor) {
        None => Ok(config),
        Some(misfit) => {
            let what = format!("is a ControlNet for models of another family ({misfit}); give one for this model's");
            Err(Error::config(place, what))
        }
    }
}

/// What a request's first ControlNets see, by the names of their inputs, at the picture's size.
///
/// # Errors
/// As [`guiding`].
pub(super) fn images(request: &Request, count: usize, settings: &Settings) -> Result<Vec<(String, Tensor)>> {
    let Settings { width, height, .. } = *settings;
    let image = |(index, control): (usize, &Control)| {
        let shown = guiding(request, &control.image, [height, width])?;
        Ok((image_input(index), shown.to_tensor(width, height)))
    };
    request.controls[..count].iter().enumerate().map(image).collect()
}

/// For each ControlNet the name of its scale's input, and the scale at each evaluation of the UNet.
pub(super) fn scales(controls: &[Control], evaluations: usize) -> Vec<(String, Vec<f32>)> {
    let scales = |control: &Control| (0..evaluations).map(|at| control.scale_at(at, evaluations)).collect();
    let named = |(index, control)| (scale_input(index), scales(control));
    controls.iter().enumerate().map(named).collect()
}
