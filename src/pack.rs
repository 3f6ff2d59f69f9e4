//! From a file's layout to a kernel's: how PyTorch's parameters are laid out for a matrix product.
//!
//! Every product here is `[rows, K] x [K, N]` with N contiguous. PyTorch stores `[N, K]` (linear) or `[N, I, KH, KW]`
//! (convolution); [`Pack`] turns them into `[K, N]` and `[KH, KW, I, N]`, so that a convolution is the same product
//! with K running over taps and channels.
//!
//! Floor 0: may import floor 0.

use std::borrow::Cow;
use std::ops::Range;

use bytemuck::{AnyBitPattern, NoUninit};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::elements::{e4m3, e5m2};
use crate::tensor::{DType, Elements, RawTensor, Shape, Tensor, pad4};

/// A parameter's way from the file to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pack {
    /// As it is: vectors, look-up tables.
    Plain,
    /// `[N, K]`, or a 1x1 convolution's `[N, K, 1, 1]`, to `[K, N]`.
    Linear,
    /// `[2N, K]` to `[K, 2N]` with the columns in pairs, 0 and N, 1 and N + 1, ..: values and gates (GEGLU), which
    /// PyTorch stores one half after the other.
    LinearPairs,
    /// `[2N]` in the order of [`Pack::LinearPairs`]: its bias.
    Pairs,
    /// `[N, I, KH, KW]` to `[KH, KW, I, N]`.
    Conv,
}

/// A file's tensor seen as `[n][i][t]`, of which the kernel wants `[t][i][n]`.
struct Extents {
    n: usize,
    i: usize,
    t: usize,
}

/// Elements of a file's row, and rows, that are transposed at a time: few enough to stay in the cache.
const STRETCH: usize = 128;
const COLUMNS: usize = 64;

impl Pack {
    /// The shape that the kernel sees.
    pub fn packed(self, file: &Shape) -> Shape {
        match (self, file.dims()) {
            (Self::Linear | Self::LinearPairs, &[n, k] | &[n, k, 1, 1]) => [k, n].into(),
            (Self::Conv, &[n, i, kh, kw]) => [kh, kw, i, n].into(),
            _ => file.clone(),
        }
    }

    fn extents(self, file: &Shape) -> Extents {
        match (self, file.dims()) {
            (Self::Linear | Self::LinearPairs, &[n, i] | &[n, i, 1, 1]) => Extents { n, i, t: 1 },
            (Self::Conv, &[n, i, kh, kw]) => Extents { n, i, t: kh * kw },
            _ => Extents { n: file.channels(), i: file.rows(), t: 1 },
        }
    }

    /// The file's row that becomes column number `column` of `count`.
    fn file_row(self, column: usize, count: usize) -> usize {
        match self {
            Self::LinearPairs | Self::Pairs => column / 2 + column % 2 * (count / 2),
            Self::Plain | Self::Linear | Self::Conv => column,
        }
    }

    /// The tensor in f32, unpadded, for the CPU.
    ///
    /// # Errors
    /// If a value is not finite, or the file holds integers.
    pub fn to_tensor(self, raw: &RawTensor, file: &Shape) -> Result<Tensor> {
        let mut data = vec![0f32; file.len()];
        self.write_f32(raw, file, &mut data, |x| x)?;
        Ok(Tensor { shape: self.packed(file), data })
    }

    /// The same elements in the type that the file has them in, with N cut into panels of so many columns, one after
    /// the other and the last one padded with zeros to a multiple of `whole`: each `[.., width of the panel]`.
    ///
    /// # Errors
    /// As [`Pack::to_tensor`].
    pub fn to_panels(self, raw: &RawTensor, file: &Shape, columns: usize, whole: usize) -> Result<Elements> {
        let panels = (columns, whole);
        Ok(match raw.dtype {
            DType::F32 => Elements::F32(self.place_panels(&finite(raw, f32::is_finite)?, file, panels)),
            DType::F16 => Elements::F16(self.place_panels(&finite(raw, f16::is_finite)?, file, panels)),
            DType::BF16 => Elements::BF16(self.place_panels(&finite(raw, bf16::is_finite)?, file, panels)),
            DType::F8E4M3 => Elements::E4M3(self.place_panels(&finite(raw, is_e4m3)?, file, panels)),
            DType::F8E5M2 => Elements::E5M2(self.place_panels(&finite(raw, is_e5m2)?, file, panels)),
            DType::I32 | DType::I64 => return Err(Error::shape(format!("cannot be {}", raw.dtype))),
        })
    }

    fn place_panels<T>(self, source: &[T], file: &Shape, (columns, whole): (usize, usize)) -> Vec<T>
    where
        T: Copy + Default + Send + Sync,
    {
        let Extents { n, i, t } = self.extents(file);
        let k = i * t;
        let mut out = vec![T::default(); k * n.next_multiple_of(whole)];
        out.par_chunks_mut((k * columns).max(1)).enumerate().for_each_init(Vec::new, |buffer, (panel, out)| {
            let (first, width) = (panel * columns, out.len() / k);
            for channels in blocks(i, t) {
                let tile =
                    self.tile(source, [n, i, t], first..n.min(first + width), channels.clone(), buffer, |from, to| {
                        to.copy_from_slice(from);
                    });
                for (channel, tap) in channels.clone().flat_map(|channel| (0..t).map(move |tap| (channel, tap))) {
                    let row = &mut out[(tap * i + channel) * width..][..width];
                    tile.column((channel - channels.start) * t + tap, row);
                }
            }
        });
        out
    }

    /// The contents of a device buffer, as words since those are aligned: rows padded with zeros to a multiple of
    /// four, and the channels that a product sums over padded likewise, since activations are.
    ///
    /// # Errors
    /// If a value is not finite, or the file holds integers. (One that overflows f16 becomes infinite and shows in the
    /// output.)
    pub fn to_words(self, raw: &RawTensor, file: &Shape, dtype: DType) -> Result<Vec<u32>> {
        let Extents { n, i, t } = self.extents(file);
        let rows = t * if file.rank() < 2 { i } else { pad4(i) };
        let len = rows * pad4(n);
        if dtype == DType::F16 {
            let mut words = vec![0u32; len / 2];
            self.write_f16(raw, file, bytemuck::cast_slice_mut(&mut words))?;
            return Ok(words);
        }
        let mut words = vec![0u32; len];
        self.write_f32(raw, file, bytemuck::cast_slice_mut(&mut words), pad4)?;
        Ok(words)
    }

    fn write_f32(self, raw: &RawTensor, file: &Shape, out: &mut [f32], pad: fn(usize) -> usize) -> Result<()> {
        match raw.dtype {
            DType::F32 => self.place(raw, f32::is_finite, file, out, pad, |from, to| to.copy_from_slice(from)),
            DType::F16 => self.place(raw, f16::is_finite, file, out, pad, |from, to| from.convert_to_f32_slice(to)),
            DType::BF16 => self.place(raw, bf16::is_finite, file, out, pad, |from, to| from.convert_to_f32_slice(to)),
            DType::F8E4M3 => self.place(raw, is_e4m3, file, out, pad, |from, to| widen(from, to, e4m3)),
            DType::F8E5M2 => self.place(raw, is_e5m2, file, out, pad, |from, to| widen(from, to, e5m2)),
            DType::I32 | DType::I64 => Err(Error::shape(format!("cannot be {}", raw.dtype))),
        }
    }

    fn write_f16(self, raw: &RawTensor, file: &Shape, out: &mut [f16]) -> Result<()> {
        if raw.dtype == DType::F16 {
            return self.place(raw, f16::is_finite, file, out, pad4, |from, to| to.copy_from_slice(from));
        }
        let mut floats = vec![0f32; out.len()];
        self.write_f32(raw, file, &mut floats, pad4)?;
        out.convert_from_f32_slice(&floats);
        Ok(())
    }

    /// Puts the source's elements, converted a stretch at a time, at their places among zeros; `pad` gives the length
    /// of a padded dimension.
    fn place<S: AnyBitPattern + NoUninit + Sync, T: Copy + Default + Send>(
        self,
        raw: &RawTensor,
        is_finite: fn(S) -> bool,
        file: &Shape,
        out: &mut [T],
        pad: fn(usize) -> usize,
        convert: fn(&[S], &mut [T]),
    ) -> Result<()> {
        let source: &[S] = &finite(raw, is_finite)?;
        let Extents { n, i, t } = self.extents(file);
        let row = pad(n);
        if out.is_empty() {
            return Ok(());
        }
        if self == Self::Plain {
            out.par_chunks_mut(row).zip(source.par_chunks(n)).for_each(|(to, from)| convert(from, &mut to[..n]));
            return Ok(());
        }
        // For each block of channels, where it goes in each tap.
        let size = blocks(pad(i), t).next().map_or(1, |first| first.len());
        let mut parts: Vec<Vec<&mut [T]>> = blocks(pad(i), t).map(|_| Vec::with_capacity(t)).collect();
        for tap in out.chunks_mut(pad(i) * row) {
            tap.chunks_mut(size * row).zip(&mut parts).for_each(|(target, part)| part.push(target));
        }
        parts.into_par_iter().zip(blocks(i, t).collect::<Vec<_>>()).for_each_init(
            Vec::new,
            |buffer, (mut taps, channels)| {
                for first in (0..n).step_by(COLUMNS) {
                    let columns = first..n.min(first + COLUMNS);
                    let tile = self.tile(source, [n, i, t], columns.clone(), channels.clone(), buffer, convert);
                    for channel in 0..channels.len() {
                        for (tap, out) in taps.iter_mut().enumerate() {
                            tile.column(channel * t + tap, &mut out[channel * row + first..][..columns.len()]);
                        }
                    }
                }
            },
        );
        Ok(())
    }

    /// Some columns of some channels, converted, in `buffer`.
    fn tile<'b, S, T: Copy + Default>(
        self,
        source: &[S],
        [n, i, t]: [usize; 3],
        columns: Range<usize>,
        channels: Range<usize>,
        buffer: &'b mut Vec<T>,
        convert: impl Fn(&[S], &mut [T]),
    ) -> Tile<'b, T> {
        let len = channels.len() * t;
        buffer.resize(columns.len() * len, T::default());
        for (column, stretch) in columns.zip(buffer.chunks_exact_mut(len)) {
            let at = self.file_row(column, n) * i * t + channels.start * t;
            convert(&source[at..at + len], stretch);
        }
        Tile { rows: buffer, len }
    }
}

/// A part of a matrix whose rows are to become columns: `[.., len]`.
struct Tile<'b, T> {
    rows: &'b [T],
    len: usize,
}

impl<T: Copy> Tile<'_, T> {
    /// Copies that column, which may be shorter than `to`.
    fn column(&self, column: usize, to: &mut [T]) {
        for (to, row) in to.iter_mut().zip(self.rows.chunks_exact(self.len)) {
            *to = row[column];
        }
    }
}

/// So many channels of so many taps, a block at a time.
fn blocks(channels: usize, taps: usize) -> impl Iterator<Item = Range<usize>> {
    let size = STRETCH.div_ceil(taps.max(1));
    (0..channels).step_by(size).map(move |first| first..channels.min(first + size))
}

/// Whether an E4M3 is finite.
fn is_e4m3(bits: u8) -> bool {
    bits & 0x7f != 0x7f
}

/// Whether an E5M2 is finite.
fn is_e5m2(bits: u8) -> bool {
    bits & 0x7c != 0x7c
}

fn widen(from: &[u8], to: &mut [f32], of: fn(u8) -> f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = of(*from));
}

/// The elements of a file's tensor, if all are finite. Looks at every one without a branch for each, so that it costs
/// no more than reading them, and copies them only if the file does not align them.
fn finite<'a, T: AnyBitPattern + NoUninit>(raw: &'a RawTensor, is_finite: fn(T) -> bool) -> Result<Cow<'a, [T]>> {
    let aligned = bytemuck::try_cast_slice(&raw.bytes).map(Cow::Borrowed);
    let values = aligned.unwrap_or_else(|_| Cow::Owned(bytemuck::pod_collect_to_vec(&raw.bytes)));
    if values.iter().fold(true, |all, x| all & is_finite(*x)) {
        return Ok(values);
    }
    Err(Error::shape("holds NaN or infinite values"))
}

#[cfg(test)]
mod tests {
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
    fn values_and_gates_become_pairs_in_the_weight_and_in_the_bias() {
        let w = raw([4, 2]);
        let packed = Pack::LinearPairs.to_tensor(&w, &w.shape).unwrap();
        assert_eq!(packed, Tensor::new([2, 4], vec![1.0, 5.0, 3.0, 7.0, 2.0, 6.0, 4.0, 8.0]));
        let bias = raw([6]);
        let packed = Pack::Pairs.to_tensor(&bias, &bias.shape).unwrap();
        assert_eq!(packed, Tensor::new([6], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        let words = Pack::Pairs.to_words(&bias, &bias.shape, DType::F32).unwrap();
        assert_eq!(bytemuck::cast_slice::<u32, f32>(&words), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 0.0, 0.0]);
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
        let words = Pack::Conv.to_words(&w, &w.shape, DType::F32).unwrap();
        let data: &[f32] = bytemuck::cast_slice(&words);
        assert_eq!(data, [1., 4., 0., 0., 2., 5., 0., 0., 3., 6., 0., 0., 0., 0., 0., 0.]);
        let words = Pack::Conv.to_words(&w, &w.shape, DType::F16).unwrap();
        let data: &[f16] = bytemuck::cast_slice(&words);
        assert_eq!(data[..6].iter().map(|x| x.to_f32()).collect::<Vec<_>>(), [1., 4., 0., 0., 2., 5.]);
    }

    #[test]
    fn a_value_that_is_not_finite_is_an_error() {
        let mut w = raw([2, 2]);
        w.bytes.to_mut()[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Pack::Linear.to_tensor(&w, &w.shape).is_err());
    }
}
