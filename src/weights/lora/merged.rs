//! A network's weights with the changes of LoRA files in them, made tensor by tensor as they are asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use web_time::Instant;

use super::change::Change;
use crate::pack::Pack;
use crate::tensor::{DType, RawTensor, Shape, Weights};

/// The weights of `inner`, with changes to some of them. A changed tensor is in f32, whatever the file has, so that
/// small changes keep their digits, and in no blocks; it is made anew each time and kept by nobody.
pub struct Merged<W> {
    pub(super) inner: W,
    /// By the tensor's name.
    pub(super) changes: Arc<BTreeMap<String, Vec<Change>>>,
    /// What messages call the files that they are of.
    pub(super) files: String,
    /// Nanoseconds that merging took, of all networks.
    pub(super) clock: Arc<AtomicU64>,
}

impl<W: Weights> Weights for Merged<W> {
    fn place(&self) -> String {
        if self.files.is_empty() { self.inner.place() } else { format!("{} with {}", self.inner.place(), self.files) }
    }

    fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let raw = self.inner.get(name)?;
        let Some(changes) = self.changes.get(name) else { return Some(raw) };
        let begun = Instant::now();
        // What cannot be read is an error of whoever asks.
        let rows = raw.shape.batch();
        let Ok(mut tensor) = Pack::Plain.to_tensor(&raw, &[rows, raw.shape.len() / rows.max(1)].into()) else {
            return Some(raw);
        };
        Change::add_all(changes, &mut tensor.data);
        let bytes = Cow::Owned(bytemuck::cast_slice(&tensor.data).to_vec());
        self.clock.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Some(RawTensor { dtype: DType::F32, shape: raw.shape, bytes })
    }

    fn passed_on<'n>(&self, name: &'n str) -> Option<(&dyn Weights, &'n str)> {
        (!self.changes.contains_key(name)).then_some((&self.inner, name))
    }

    // A changed tensor takes time to make, and these are known without it.
    fn shape(&self, name: &str) -> Option<Shape> {
        self.inner.shape(name)
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        if self.changes.contains_key(name) { Some(DType::F32) } else { self.inner.dtype(name) }
    }

    fn names(&self) -> Vec<String> {
        self.inner.names()
    }
}
