//! Weights of eight bits that are to be multiplied by numbers beside them (`scaled_fp8`), as ComfyUI writes them.

use std::collections::BTreeMap;

use crate::tensor::{DType, RawTensor, Shape};
use crate::weights::format::Header;

/// What such numbers are called, next to the `weight` that they are of.
const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];
/// What else stands there, which is for products in eight bits.
const OTHERS: [&str; 3] = ["scale_input", "input_scale", "comfy_quant"];
/// What tells that a file has them.
const MARK: &str = "scaled_fp8";

/// The numbers of each weight that has some: one for all, or one for each row. They and what goes with them are taken
/// out of the header, so that nothing else sees them.
pub(super) fn take(header: &mut Header, data: &[u8]) -> BTreeMap<String, Vec<f32>> {
    let is_eight = |stored: &DType| matches!(stored, DType::F8E4M3 | DType::F8E5M2);
    let eight: Vec<String> =
        header.index.iter().filter(|(_, stored)| is_eight(&stored.dtype)).map(|(name, _)| name.clone()).collect();
    let mut scales = BTreeMap::new();
    for weight in &eight {
        let Some(module) = weight.strip_suffix("weight") else { continue };
        let rows = header.index[weight].shape.batch();
        for name in SCALES.map(|scale| format!("{module}{scale}")) {
            let values = header.index.get(&name).map(|stored| {
                let bytes = data[stored.range.clone()].into();
                RawTensor { dtype: stored.dtype, shape: Shape::default(), bytes }.to_f32()
            });
            if let Some(values) = values.filter(|values| values.len() == 1 || values.len() == rows && rows > 0) {
                header.index.remove(&name);
                scales.insert(weight.clone(), values);
            }
        }
        for name in OTHERS.map(|other| format!("{module}{other}")) {
            header.index.remove(&name);
            header.unknown.remove(&name);
        }
    }
    header.index.retain(|name, _| name.rsplit('.').next() != Some(MARK));
    scales
}

/// The weights times their numbers, in f32.
pub(super) fn multiplied(raw: &RawTensor, scales: &[f32]) -> RawTensor<'static> {
    let mut values = raw.to_f32();
    let each = (values.len() / scales.len()).max(1);
    for (row, scale) in values.chunks_mut(each).zip(scales) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
    RawTensor { dtype: DType::F32, shape: raw.shape.clone(), bytes: bytemuck::cast_slice(&values).to_vec().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::format::Stored;

    #[test]
    fn a_weight_takes_a_number_for_all_or_one_for_each_of_its_rows() {
        for (rows, numbers, taken) in [(2, 1, true), (2, 2, true), (2, 3, false), (2, 0, false), (0, 0, false)] {
            let stored = |dtype: DType, dims: &[usize]| {
                let bytes = dims.iter().product::<usize>() * dtype.size();
                Stored { dtype, shape: Shape::new(dims.to_vec()), range: 0..bytes, blocks: None }
            };
            let index = [
                ("a.weight".into(), stored(DType::F8E4M3, &[rows, 4])),
                ("a.scale_weight".into(), stored(DType::F32, &[numbers])),
            ];
            let mut header = Header { index: index.into(), ..Header::default() };
            let scales = take(&mut header, &[0; 16]);
            assert_eq!(scales.contains_key("a.weight"), taken, "{rows} rows, {numbers} numbers");
        }
    }
}
