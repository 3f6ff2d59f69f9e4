//! From a file's layout to a kernel's: how PyTorch's parameters are laid out for a matrix product.
//!
//! Every product here is `[rows, K] x [K, N]` with N contiguous. PyTorch stores `[N, K]` (linear) or `[N, I, KH, KW]`
//! (convolution); [`Pack`] turns them into `[K, N]` and `[KH, KW, I, N]`, so that a convolution is the same product with
//! K running over taps and channels.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::{DType, RawTensor, Shape, Tensor, pad4};

/// A parameter's way from the file to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pack {
    /// As it is: vectors, look-up tables.
    Plain,
    /// `[N, K]` to `[K, N]`.
    Linear,
    /// `[N, I, KH, KW]` to `[KH, KW, I, N]`.
    Conv,
}

/// The source seen as `[N][I][T]`, the target as `[T][I][N]`: one description for all three.
struct Extents {
    n: usize,
    i: usize,
    t: usize,
}

impl Pack {
    /// The shape that the kernel sees.
    pub fn packed(self, file: &Shape) -> Shape {
        match (self, file.dims()) {
            (Self::Linear, &[n, k]) => [k, n].into(),
            (Self::Conv, &[n, i, kh, kw]) => [kh, kw, i, n].into(),
            _ => file.clone(),
        }
    }

    fn extents(self, file: &Shape) -> Extents {
        match (self, file.dims()) {
            (Self::Linear, &[n, i]) => Extents { n, i, t: 1 },
            (Self::Conv, &[n, i, kh, kw]) => Extents { n, i, t: kh * kw },
            _ => Extents { n: file.channels(), i: file.rows(), t: 1 },
        }
    }

    /// The tensor in f32, unpadded, for the CPU.
    pub fn to_tensor(self, raw: &RawTensor, file: &Shape) -> Result<Tensor> {
        let mut data = vec![0f32; file.len()];
        self.write(raw, file, &mut data, false, |v| v)?;
        Ok(Tensor { shape: self.packed(file), data })
    }

    /// The bytes of a device buffer: rows padded with zeros to a multiple of four, and the channels that a product
    /// sums over padded likewise, since activations are.
    ///
    /// # Errors
    /// If a value is not finite in the file. (One that overflows f16 becomes infinite and shows in the output.)
    pub fn to_bytes(self, raw: &RawTensor, file: &Shape, dtype: DType) -> Result<Vec<u8>> {
        let Extents { n, i, t } = self.extents(file);
        let rows = t * if file.rank() < 2 { i } else { pad4(i) };
        let len = rows * pad4(n);
        if dtype == DType::F16 {
            let mut data = vec![f16::ZERO; len];
            self.write(raw, file, &mut data, true, f16::from_f32)?;
            return Ok(bytemuck::cast_slice(&data).to_vec());
        }
        let mut data = vec![0f32; len];
        self.write(raw, file, &mut data, true, |v| v)?;
        Ok(bytemuck::cast_slice(&data).to_vec())
    }

    fn write<T: Send + Sync>(
        self,
        raw: &RawTensor,
        file: &Shape,
        out: &mut [T],
        padded: bool,
        convert: fn(f32) -> T,
    ) -> Result<()> {
        let finite = match raw.dtype {
            DType::F16 => {
                self.transpose(raw, 2, file, out, padded, |b| f16::from_le_bytes([b[0], b[1]]).to_f32(), convert)
            }
            DType::BF16 => {
                self.transpose(raw, 2, file, out, padded, |b| bf16::from_le_bytes([b[0], b[1]]).to_f32(), convert)
            }
            DType::F32 => {
                self.transpose(raw, 4, file, out, padded, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]), convert)
            }
            DType::I32 | DType::I64 => {
                return Err(Error::shape(format!("a parameter cannot be {}", raw.dtype)));
            }
        };
        if finite { Ok(()) } else { Err(Error::shape("holds NaN or infinite values")) }
    }

    /// Returns whether every value read was finite.
    #[allow(clippy::too_many_arguments)] // one call site family, three lines above
    fn transpose<T: Send + Sync>(
        self,
        raw: &RawTensor,
        size: usize,
        file: &Shape,
        out: &mut [T],
        padded: bool,
        read: impl Fn(&[u8]) -> f32 + Sync,
        convert: fn(f32) -> T,
    ) -> bool {
        let Extents { n, i, t } = self.extents(file);
        let pad = |x| if padded { pad4(x) } else { x };
        let (row, rows_per_tap) = (pad(n), if file.rank() < 2 { i } else { pad(i) });
        let bytes = &raw.bytes;
        if out.is_empty() {
            return true;
        }
        // Blocks of target rows that come from the same stretch of source, so that a cache line read for one is still
        // there for the next.
        const BLOCK: usize = 32;
        out.par_chunks_mut(row * BLOCK)
            .enumerate()
            .map(|(block, target)| {
                let mut finite = true;
                let rows = target.len() / row;
                for column in 0..n {
                    for r in 0..rows {
                        let (tap, channel) = ((block * BLOCK + r) / rows_per_tap, (block * BLOCK + r) % rows_per_tap);
                        if channel >= i {
                            continue;
                        }
                        let source = match self {
                            Self::Plain => channel * n + column,
                            Self::Linear | Self::Conv => (column * i + channel) * t + tap,
                        };
                        let value = read(&bytes[source * size..]);
                        finite &= value.is_finite();
                        target[r * row + column] = convert(value);
                    }
                }
                finite
            })
            .reduce(|| true, |a, b| a && b)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn raw(shape: impl Into<Shape>) -> RawTensor<'static> {
        let shape = shape.into();
        let bytes = (0..shape.len()).flat_map(|i| (i as f32 + 1.0).to_le_bytes()).collect::<Vec<_>>();
        RawTensor { dtype: DType::F32, shape, bytes: Cow::Owned(bytes) }
    }

    #[test]
    fn a_linear_weight_is_transposed() {
        let w = raw([2, 3]);
        let packed = Pack::Linear.to_tensor(&w, &w.shape).unwrap();
        assert_eq!(packed, Tensor::new([3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    }

    #[test]
    fn a_convolution_weight_goes_from_oihw_to_hwio() {
        let w = raw([5, 3, 3, 2]);
        let packed = Pack::Conv.to_tensor(&w, &w.shape).unwrap();
        assert_eq!(packed.shape, Shape::from([3, 2, 3, 5]));
        let (o, i, ky, kx) = (4, 2, 1, 1);
        assert_eq!(packed.data[((ky * 2 + kx) * 3 + i) * 5 + o], (((o * 3 + i) * 3 + ky) * 2 + kx) as f32 + 1.0);
    }

    #[test]
    fn a_device_buffer_has_both_channel_dimensions_padded_with_zeros() {
        let w = raw([2, 3, 1, 1]);
        let bytes = Pack::Conv.to_bytes(&w, &w.shape, DType::F32).unwrap();
        let data: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        assert_eq!(data, [1., 4., 0., 0., 2., 5., 0., 0., 3., 6., 0., 0., 0., 0., 0., 0.]);
        let bytes = Pack::Conv.to_bytes(&w, &w.shape, DType::F16).unwrap();
        assert_eq!(bytes.len(), 32);
    }

    #[test]
    fn a_value_that_is_not_finite_is_an_error() {
        let mut w = raw([2, 2]);
        w.bytes.to_mut()[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Pack::Linear.to_tensor(&w, &w.shape).is_err());
    }
}
