//! `y[.., t, :] = table[ids[.., t], :] + positions[t, :]`: ids `[.., T]`, table `[V, C]`, positions `[P, C]` with P at
//! least T, to `[.., T, C]`. The text encoders' first step (transformers `CLIPTextEmbeddings`, PyTorch `Embedding`);
//! with activations for a table it picks rows of them, which is how the text encoders pool.
//!
//! An id past the table's end takes the last row: it is for whoever knows the ids to refuse it.

use super::{Case, Fill, Inputs, Kind, Launch, Op, Ty, expect_inputs, expect_kind};
use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, pad4};

/// Rows of a table by their indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedding {
    /// There is a third input, added by each id's place in its row.
    pub positions: bool,
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    /// The table may be of any rank: all its dimensions but the last number its rows.
    fn output(&self, inputs: Inputs) -> Result<Ty> {
        expect_inputs("embedding", inputs, 2 + usize::from(self.positions))?;
        expect_kind(inputs, 0, "embedding: the ids", Kind::U32)?;
        if inputs[1].kind != Kind::Act {
            expect_kind(inputs, 1, "embedding: the table", Kind::Weight)?;
        }
        let (ids, channels) = (&inputs[0].shape, inputs[1].shape.channels());
        if self.positions {
            expect_kind(inputs, 2, "embedding: the positions", Kind::Weight)?;
            let positions = &inputs[2].shape;
            if positions.channels() != channels || positions.rows() < ids.channels() {
                let wanted = format!("[{} or more, {channels}]", ids.channels());
                return Err(Error::shape(format!("embedding: the positions should be {wanted}, found {positions}")));
            }
        }
        Ok(Ty::act(Shape::new([ids.dims(), &[channels]].concat())))
    }

    fn reference(&self, inputs: &[&Tensor], output: &Shape) -> Tensor {
        let (ids, table, c) = (inputs[0], inputs[1], output.channels());
        let (tokens, last) = (ids.shape.channels(), table.shape.rows() - 1);
        let mut y = Tensor::zeros(output.clone());
        for (i, (y, id)) in y.data.chunks_exact_mut(c).zip(&ids.data).enumerate() {
            y.copy_from_slice(&table.data[(*id as usize).min(last) * c..][..c]);
            if let (true, Some(positions)) = (self.positions, inputs.get(2)) {
                let position = &positions.data[i % tokens * c..][..c];
                y.iter_mut().zip(position).for_each(|(y, p)| *y += p);
            }
        }
        y
    }

    fn launch(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Launch> {
        let is_weight = inputs[1].kind == Kind::Weight;
        Ok(Launch::flat("embedding", 1, output.device_len() / 4, caps)
            .optional(is_weight)
            .optional(!is_weight)
            .optional(self.positions)
            .constant("TABLE_IS_WEIGHT", is_weight)
            .constant("HAS_POSITIONS", self.positions)
            .param("tokens", inputs[0].shape.channels())
            .param("entries", inputs[1].shape.rows())
            .param("row", pad4(output.shape.channels()) / 4))
    }

    fn flops(&self, _inputs: Inputs, output: &Ty) -> u64 {
        if self.positions { output.shape.len() as u64 } else { 0 }
    }

    fn reads(&self, inputs: Inputs, output: &Ty, index: usize) -> usize {
        if index == 0 { inputs[0].device_len() } else { output.device_len().min(inputs[index].device_len()) }
    }
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let look_up = |ids: &[usize], entries: usize, c: usize, positions: Option<usize>| {
        let ids = Ty::new(Kind::U32, Shape::new(ids));
        let tables = [Some(entries), positions].into_iter().flatten().map(|rows| Ty::new(Kind::Weight, [rows, c]));
        let op = Embedding { positions: positions.is_some() };
        Case::new(op, [ids].into_iter().chain(tables)).fill(0, Fill::Below(entries as u32))
    };
    let pool = Case::new(Embedding { positions: false }, [Ty::new(Kind::U32, [2]), Ty::act([2, 77, 96])]);
    let pool = pool.fill(0, Fill::Below(154));
    let beyond = look_up(&[1, 6], 5, 8, None).fill(0, Fill::Below(9));
    vec![
        look_up(&[1], 1, 1, None),
        look_up(&[3, 7], 11, 5, Some(9)),
        look_up(&[2, 77], 1000, 96, Some(77)),
        look_up(&[2, 2, 3], 10, 6, Some(3)),
        pool,
        beyond,
    ]
}

/// What a full check adds: the tokens of SDXL's larger text encoder.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    let [ids, table, positions] = [vec![2, 77], vec![49_408, 1280], vec![77, 1280]].map(Shape::new);
    let types = [Ty::new(Kind::U32, ids), Ty::new(Kind::Weight, table), Ty::new(Kind::Weight, positions)];
    vec![Case::new(Embedding { positions: true }, types).fill(0, Fill::Below(49_408))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Binding;

    #[test]
    fn positions_count_along_each_row() {
        let ids = Tensor::new([2, 2], vec![1.0, 0.0, 0.0, 1.0]);
        let table = Tensor::new([2, 1], vec![10.0, 20.0]);
        let positions = Tensor::new([3, 1], vec![1.0, 2.0, 3.0]);
        let y = Embedding { positions: true }.reference(&[&ids, &table, &positions], &[2, 2, 1].into());
        assert_eq!(y.data, [21.0, 12.0, 11.0, 22.0]);
    }

    #[test]
    fn too_few_positions_are_an_error() {
        let inputs = [Ty::new(Kind::U32, [1, 9]), Ty::new(Kind::Weight, [50, 4]), Ty::new(Kind::Weight, [8, 4])];
        let error = Embedding { positions: true }.output(&inputs).unwrap_err().to_string();
        assert!(error.contains("positions should be [9 or more, 4], found [8, 4]"), "{error}");
    }

    #[test]
    fn a_table_of_activations_is_bound_as_such() {
        let inputs = [Ty::new(Kind::U32, [2]), Ty::act([2, 9, 4])];
        let op = Embedding { positions: false };
        let launch = op.launch(&inputs, &op.output(&inputs).unwrap(), &Caps::webgpu_default()).unwrap();
        assert_eq!(launch.bindings[1..4], [Binding::Absent, Binding::Input(1), Binding::Absent]);
    }
}
