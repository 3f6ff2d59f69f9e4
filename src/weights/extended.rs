//! Weights with rows added to one table: a text encoder that textual inversion gave more tokens.

use std::borrow::Cow;

use crate::tensor::{DType, RawTensor, Tensor, Weights};

/// The weights of `inner`, the table `key` with `rows` `[N, width]` after its own.
pub struct Extended<W> {
    pub inner: W,
    pub key: &'static str,
    pub rows: Tensor,
}

impl<W: Weights> Weights for Extended<W> {
    fn place(&self) -> String {
        self.inner.place()
    }

    /// The table is widened to f32, so that the added rows keep their digits.
    fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let raw = self.inner.get(name)?;
        if name != self.key || self.rows.shape.is_empty() {
            return Some(raw);
        }
        let rows = raw.shape.batch() + self.rows.shape.batch();
        let all = raw.to_f32().into_iter().chain(self.rows.data.iter().copied());
        let bytes = Cow::Owned(all.flat_map(f32::to_le_bytes).collect());
        Some(RawTensor { dtype: DType::F32, shape: raw.shape.with_batch(rows), bytes })
    }

    fn names(&self) -> Vec<String> {
        self.inner.names()
    }
}
