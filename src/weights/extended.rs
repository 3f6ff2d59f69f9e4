//! Weights with rows added to one table: a text encoder that textual inversion gave more tokens.

use std::borrow::Cow;

use crate::tensor::{DType, RawTensor, Tensor, Weights};

/// The weights of `inner`, but for one table that has more rows.
pub struct Extended<W> {
    inner: W,
    /// Its name, and all its rows.
    table: Option<(String, RawTensor<'static>)>,
}

impl<W: Weights> Extended<W> {
    /// Puts `rows` `[N, width]` after those of the table `key`, if there are any. The table is then widened to f32, so
    /// that the added rows keep their digits.
    pub fn new(inner: W, key: &str, rows: &Tensor) -> Self {
        let found = if rows.shape.is_empty() { None } else { inner.get(key) };
        let table = found.map(|raw| {
            let shape = raw.shape.with_batch(raw.shape.batch() + rows.shape.batch());
            let all = raw.to_f32().into_iter().chain(rows.data.iter().copied());
            let bytes = Cow::Owned(all.flat_map(f32::to_le_bytes).collect());
            (key.to_string(), RawTensor { dtype: DType::F32, shape, bytes })
        });
        Self { inner, table }
    }
}

impl<W: Weights> Weights for Extended<W> {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        match &self.table {
            Some((key, RawTensor { dtype, shape, bytes })) if key == name => {
                Some(RawTensor { dtype: *dtype, shape: shape.clone(), bytes: Cow::Borrowed(bytes) })
            }
            _ => self.inner.get(name),
        }
    }

    fn passed_on<'n>(&self, name: &'n str) -> Option<(&dyn Weights, &'n str)> {
        self.table.as_ref().is_none_or(|(key, _)| key != name).then_some((&self.inner, name))
    }

    fn names(&self) -> Vec<String> {
        self.inner.names()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;
    use crate::weights::{Bundle, Changes, Synthetic, check};

    fn extended(rows: usize) -> Extended<Synthetic> {
        let wanted = ["table", "other"].map(|name| (name.to_string(), Shape::from([3, 2])));
        let rows = Tensor::new([rows, 2], (0..2 * rows).map(|i| i as f32 + 0.1).collect());
        Extended::new(Synthetic::new("here", wanted), "table", &rows)
    }

    /// Weights whose values nobody may ask for.
    struct Unread(Shape);

    impl Weights for Unread {
        fn place(&self) -> String {
            "here".into()
        }

        fn get(&self, name: &str) -> Option<RawTensor<'_>> {
            panic!("{name} is read")
        }

        fn shape(&self, _: &str) -> Option<Shape> {
            Some(self.0.clone())
        }

        fn names(&self) -> Vec<String> {
            vec!["other".into()]
        }
    }

    #[test]
    fn shapes_are_checked_without_reading_a_value_through_every_wrapper() {
        let merged = Changes::default().merged("unet", Unread([3, 2].into()));
        let bundle = Bundle::new(merged, vec![("control.0".to_string(), Unread([3, 2].into()))]);
        let weights = Extended::new(bundle, "table", &Tensor::zeros([0, 2]));
        let wanted = ["other", "control.0.other"].map(|name| (name.to_string(), Shape::from([3, 2])));
        check(&weights, &wanted).unwrap();
    }

    #[test]
    fn added_rows_follow_the_tables_own_in_f32() {
        let weights = extended(2);
        let table = weights.get("table").unwrap();
        assert_eq!((table.dtype, table.shape.dims()), (DType::F32, &[5, 2][..]));
        let values = table.to_f32();
        assert_eq!(values[..6], extended(0).get("table").unwrap().to_f32());
        assert_eq!(values[6..], [0.1, 1.1, 2.1, 3.1]);
    }

    #[test]
    fn other_tensors_and_a_table_without_additions_stay_as_they_are() {
        for name in ["table", "other"] {
            assert_eq!(extended(2).dtype(name), extended(2).get(name).map(|tensor| tensor.dtype));
        }
        assert_eq!(extended(2).get("other").unwrap().dtype, DType::F16);
        assert_eq!(extended(0).get("table").unwrap().dtype, DType::F16);
        assert_eq!(extended(2).names(), ["other", "table"]);
    }
}
