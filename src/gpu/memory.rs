//! Between host tensors and device buffers: rows padded with zeros to a multiple of four, elements converted.

use half::f16;

use crate::ops::{Kind, Ty};
use crate::tensor::{DType, Tensor, pad4};

/// The bytes of a buffer that holds `tensor` as a value of that kind; `dtype` is that of activations or matrices.
pub fn to_bytes(tensor: &Tensor, kind: Kind, dtype: DType) -> Vec<u8> {
    let ty = Ty::new(kind, tensor.shape.clone());
    match (kind, dtype) {
        (Kind::U32, _) => pad(tensor, &ty, 0u32, |v| v as u32),
        (Kind::Bytes, _) => pad(tensor, &ty, 0u8, |v| v as u8),
        (Kind::Act | Kind::Weight, DType::F16) => pad(tensor, &ty, f16::ZERO, f16::from_f32),
        _ => pad(tensor, &ty, 0f32, |v| v),
    }
}

fn pad<T: bytemuck::NoUninit>(tensor: &Tensor, ty: &Ty, zero: T, convert: fn(f32) -> T) -> Vec<u8> {
    let (columns, (_, rows, padded_rows)) = (ty.shape.channels(), ty.device_blocks());
    let padded = pad4(columns);
    let mut out = vec![zero; ty.device_len()];
    for (r, source) in tensor.data.chunks_exact(columns.max(1)).enumerate() {
        let target = (r / rows * padded_rows + r % rows) * padded;
        for (v, t) in source.iter().zip(&mut out[target..]) {
            *t = convert(*v);
        }
    }
    bytemuck::cast_slice(&out).to_vec()
}

/// The inverse, for outputs: values of kind `Act` (in `dtype`) or `F32`.
pub fn from_bytes(bytes: &[u8], ty: &Ty, dtype: DType) -> Tensor {
    let (n, padded) = (ty.shape.channels(), pad4(ty.shape.channels()));
    let all: Vec<f32> = if ty.kind == Kind::Act && dtype == DType::F16 {
        bytemuck::pod_collect_to_vec::<u8, f16>(bytes).into_iter().map(f16::to_f32).collect()
    } else {
        bytemuck::pod_collect_to_vec(bytes)
    };
    let data = all.chunks_exact(padded).flat_map(|row| &row[..n]).copied().take(ty.shape.len()).collect();
    Tensor::new(ty.shape.clone(), data)
}

/// Whether every lane that pads a row of such a value is zero, of either sign.
pub fn padding_is_zero(bytes: &[u8], ty: &Ty, dtype: DType) -> bool {
    let (n, padded) = (ty.shape.channels(), pad4(ty.shape.channels()));
    let size = if ty.kind == Kind::Act { dtype.size() } else { 4 };
    let rows = bytes.chunks_exact(padded * size).take(ty.shape.rows());
    // Little-endian: the sign is the last byte's first bit.
    let is_zero =
        |lane: &[u8]| lane.iter().rev().enumerate().all(|(i, byte)| byte & if i == 0 { 0x7f } else { 0xff } == 0);
    rows.flat_map(|row| row[n * size..].chunks_exact(size)).all(is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_that_is_not_zero_is_seen_in_every_type() {
        let tensor = Tensor::new([2, 3], vec![1.0; 6]);
        for dtype in [DType::F32, DType::F16] {
            let mut bytes = to_bytes(&tensor, Kind::Act, dtype);
            assert!(padding_is_zero(&bytes, &Ty::act([2, 3]), dtype));
            *bytes.last_mut().unwrap() = 0x80;
            assert!(padding_is_zero(&bytes, &Ty::act([2, 3]), dtype), "minus zero");
            *bytes.last_mut().unwrap() = 0x3c;
            assert!(!padding_is_zero(&bytes, &Ty::act([2, 3]), dtype));
        }
    }

    #[test]
    fn activations_come_back_as_they_went() {
        let tensor = Tensor::new([2, 3], vec![1.0, 2.0, 3.0, -4.0, 5.5, 6.0]);
        for dtype in [DType::F32, DType::F16] {
            let bytes = to_bytes(&tensor, Kind::Act, dtype);
            assert_eq!(bytes.len(), 8 * dtype.size());
            assert_eq!(from_bytes(&bytes, &Ty::act([2, 3]), dtype), tensor);
        }
    }

    #[test]
    fn a_matrix_is_padded_in_both_dimensions() {
        let tensor = Tensor::new([2, 3, 5], (0..30).map(|v| v as f32).collect());
        let bytes = to_bytes(&tensor, Kind::Weight, DType::F32);
        let data: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        assert_eq!(data.len(), 2 * 4 * 8);
        assert_eq!(data[..8], [0., 1., 2., 3., 4., 0., 0., 0.]);
        assert_eq!(data[24..33], [0., 0., 0., 0., 0., 0., 0., 0., 15.]);
    }
}
