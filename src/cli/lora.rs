//! LoRA files on the command line.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use crate::error::{Error, Result};
use crate::systems::open_lora;
use crate::weights::Lora;

#[derive(Debug, Args)]
pub(super) struct LoraArgs {
    /// A LoRA file (or LoHa, LoKr, DoRA, OFT), whose changes times SCALE [default: 1] are added to the model; may be
    /// given several times
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<OsString>,
}

impl LoraArgs {
    /// The files that are named, in their order.
    ///
    /// # Errors
    /// If one cannot be read, or a scale is not finite.
    pub(super) fn open(&self) -> Result<Vec<Lora>> {
        self.lora.iter().map(|text| lora(text)).collect()
    }
}

fn lora(text: &OsStr) -> Result<Lora> {
    if let (false, Some((file, scale))) =
        (Path::new(text).exists(), text.to_str().and_then(|text| text.rsplit_once(':')))
        && Path::new(file).is_file()
        && scale.parse::<f32>().is_err()
    {
        let what = format!("--lora {file}:{scale}: {scale:?} is not a scale; give a number, as {file}:0.8");
        return Err(Error::usage(what));
    }
    // A file may have a name that ends so.
    let (path, scale) = scaled(text).filter(|_| !Path::new(text).exists()).unwrap_or((text, 1.0));
    if !scale.is_finite() {
        let text = text.to_string_lossy();
        return Err(Error::usage(format!("--lora {text}: {scale} is not a scale; 1 is all of the file's change")));
    }
    Ok(Lora { file: Arc::new(open_lora(Path::new(path))?), unet: scale, text: scale })
}

/// What is before the last colon, and the number behind it.
pub(super) fn scaled(text: &OsStr) -> Option<(&OsStr, f32)> {
    let bytes = text.as_encoded_bytes();
    let colon = bytes.iter().rposition(|byte| *byte == b':')?;
    let scale = std::str::from_utf8(&bytes[colon + 1..]).ok()?.parse().ok()?;
    // SAFETY: these bytes are of an `OsStr`, and what was cut off begins with a sign of UTF-8.
    Some((unsafe { OsStr::from_encoded_bytes_unchecked(&bytes[..colon]) }, scale))
}
