//! Textual inversion (Gal et al. 2022): vectors that a word stands for, learned for one text encoder or for SDXL's
//! two.

use std::path::Path;

use crate::error::{Error, Field, Result, ten};
use crate::systems::families::misplaced;
use crate::tensor::Tensor;
use crate::weights::{LoraFile, read_tensors};

/// A word with its vectors, as one file holds them.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// What stands for it in a prompt.
    pub name: String,
    /// What error messages call it.
    place: String,
    /// `[vectors, width]` each, and which encoder they are for, where the file says so.
    vectors: Vec<(Option<usize>, Tensor)>,
}

/// Keys of the file for SDXL: of the first encoder and of the second.
const ENCODERS: [&str; 2] = ["clip_l", "clip_g"];
/// The keys that AUTOMATIC1111's web UI gives the only tensor of a file, and of one in a bundle. The word is then the
/// file's name.
const NAMELESS: [&str; 2] = ["emb_params", "string_to_param.*"];

impl Embedding {
    /// Reads a safetensors file with `emb_params`, with `clip_l` and `clip_g`, or with one tensor under its word's
    /// name.
    ///
    /// # Errors
    /// If it is not such a file: of a pickle it is said how to convert it.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of_file(path).map_err(|error| misplaced(path, Field::Embedding, error))
    }

    fn of_file(path: &Path) -> Result<Self> {
        let fail = |what: String| Error::file(path, what);
        let ending = path.extension().and_then(|ending| ending.to_str());
        if let Some("pt" | "pth" | "bin" | "ckpt") = ending {
            return Err(fail(PICKLE.into()));
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let tensors = read_tensors(path)?.into_iter().map(|(key, (_, tensor))| (key, tensor)).collect();
        Self::of(path, name, tensors)
    }

    /// The words that come with a LoRA file (`bundle_emb`).
    ///
    /// # Errors
    /// If what stands for one is not an embedding.
    pub fn bundled(file: &LoraFile) -> Result<Vec<Self>> {
        file.bundled().map(|(word, tensors)| Self::of(file.path(), word.into(), tensors)).collect()
    }

    /// Of tensors by their keys; the word is `name` unless a tensor's key is the word.
    fn of(path: &Path, mut name: String, tensors: Vec<(String, Tensor)>) -> Result<Self> {
        let fail = |what: String| Error::file(path, what);
        let names: Vec<String> = tensors.iter().map(|(key, _)| key.clone()).collect();
        let mut vectors = Vec::new();
        for (key, tensor) in tensors {
            let encoder = ENCODERS.iter().position(|encoder| *encoder == key);
            if names.len() > 1 && encoder.is_none() {
                return Err(fail(format!("holds {}: expected one tensor, or clip_l and clip_g", ten(&names))));
            }
            if encoder.is_none() && !NAMELESS.contains(&key.as_str()) {
                name = key;
            }
            vectors.push((encoder, rows(tensor).map_err(fail)?));
        }
        if vectors.is_empty() {
            return Err(fail("holds no tensor".into()));
        }
        Ok(Self { name, place: path.display().to_string(), vectors })
    }

    /// The vectors for the encoder of this place (the first or the second) and width, if there are any.
    pub fn vectors(&self, encoder: usize, width: usize) -> Option<&Tensor> {
        let fits = |(wanted, tensor): &&(Option<usize>, Tensor)| {
            wanted.is_none_or(|wanted| wanted == encoder) && tensor.shape.channels() == width
        };
        self.vectors.iter().find(fits).map(|(_, tensor)| tensor)
    }

    /// Why it cannot be used.
    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::file(&self.place, what)
    }

    /// The width of its vectors, or the widths.
    pub fn widths(&self) -> String {
        let widths: Vec<usize> = self.vectors.iter().map(|(_, tensor)| tensor.shape.channels()).collect();
        ten(&widths)
    }
}

const PICKLE: &str = "is a PyTorch pickle, which can run any code when it is read, so it is not; convert it in Python \
                      with `safetensors.torch.save_file({\"emb_params\": \
                      torch.load(FILE)[\"string_to_param\"][\"*\"]}, \"NAME.safetensors\")`";

/// One vector or several, as `[vectors, width]`.
fn rows(tensor: Tensor) -> Result<Tensor, String> {
    if let Some(index) = tensor.first_not_finite() {
        return Err(format!("is NaN or infinite at element {}", tensor.shape.place(index)));
    }
    match *tensor.shape.dims() {
        [width] if width > 0 => Ok(Tensor::new([1, width], tensor.data)),
        [rows, width] if rows * width > 0 => Ok(tensor),
        _ => Err(format!("holds a tensor {}: expected [vectors, width]", tensor.shape)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;
    use crate::weights::write_tensors;

    fn read(file: &str, tensors: &[(&str, &[usize])]) -> Result<Embedding> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        let tensors: Vec<_> = tensors.iter().map(|(name, dims)| (*name, Tensor::zeros(Shape::new(*dims)))).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        write_tensors(&path, &tensors).unwrap();
        Embedding::read(&path)
    }

    fn message(file: &str, tensors: &[(&str, &[usize])]) -> String {
        read(file, tensors).unwrap_err().to_string()
    }

    #[test]
    fn the_web_uis_form_is_named_by_its_file() {
        let embedding = read("cat.v2.safetensors", &[("emb_params", &[2, 8])]).unwrap();
        assert_eq!(embedding.name, "cat.v2");
        assert_eq!(embedding.vectors(0, 8).unwrap().shape.dims(), [2, 8]);
        assert!(embedding.vectors(1, 8).is_some() && embedding.vectors(0, 9).is_none());
    }

    #[test]
    fn the_form_of_diffusers_names_itself() {
        let embedding = read("learned_embeds.safetensors", &[("<cat>", &[8])]).unwrap();
        assert_eq!(embedding.name, "<cat>");
        assert_eq!(embedding.vectors(0, 8).unwrap().shape.dims(), [1, 8]);
    }

    #[test]
    fn each_encoder_of_sdxl_has_its_own() {
        let embedding = read("cat.safetensors", &[("clip_g", &[3, 8]), ("clip_l", &[2, 8])]).unwrap();
        assert_eq!(embedding.name, "cat");
        assert_eq!(embedding.vectors(0, 8).unwrap().shape.dims(), [2, 8]);
        assert_eq!(embedding.vectors(1, 8).unwrap().shape.dims(), [3, 8]);
    }

    #[test]
    fn a_pickle_is_refused_with_how_to_convert_it() {
        let error = Embedding::read(Path::new("cat.pt")).unwrap_err().to_string();
        assert!(error.starts_with("cat.pt: is a PyTorch pickle") && error.contains("save_file"), "{error}");
    }

    #[test]
    fn what_is_no_embedding_is_refused() {
        assert!(message("a.safetensors", &[("a", &[8]), ("b", &[8])]).contains("holds a, b: expected one tensor"));
        assert!(message("a.safetensors", &[]).contains("holds no tensor"));
        assert!(message("a.safetensors", &[("a", &[2, 2, 2])]).contains("a tensor [2, 2, 2]"));
        assert!(message("a.safetensors", &[("a", &[0, 8])]).contains("a tensor [0, 8]"));
    }
}
