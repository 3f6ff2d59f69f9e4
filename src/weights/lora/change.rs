//! What one LoRA file does to one tensor.
//!
//! | form | change of `W [N, K]` |
//! |---|---|
//! | LoRA (Hu et al. 2021) | `up * down`, or with a core in between (CP) |
//! | LoHa (Hyeon-Woo et al. 2022) | two such products, multiplied element by element |
//! | LoKr (Yeh et al. 2023) | the Kronecker product of two matrices, each whole or a product |
//! | OFT (Qiu et al. 2023), BOFT (Liu et al. 2023) | W with blocks of its rows rotated, less W |
//! | LyCORIS' full and norm modules | itself, of biases too |
//!
//! times alpha over rank (rotations have none). DoRA (Liu et al. 2024) then gives the rows or columns of the changed
//! matrix lengths of their own.

use std::sync::Arc;

use rayon::prelude::*;

use super::factor::{Factor, Matrix};
use super::file::{LoraFile, Parts, incomplete};
use super::orthogonal::Orthogonal;
use super::roles::Role;
use crate::tensor::Shape;

/// The change, with all its tensors found and their shapes checked.
#[derive(Debug)]
pub(super) struct Change {
    lora: Arc<LoraFile>,
    /// What the user multiplies with.
    strength: f32,
    what: What,
}

#[derive(Debug)]
enum What {
    /// `scale` is alpha over rank.
    Added {
        form: Form,
        scale: f32,
        lengths: Option<Lengths>,
    },
    Rotated(Orthogonal),
}

#[derive(Debug)]
enum Form {
    Low(Factor),
    Hadamard(Factor, Factor),
    Kronecker(Factor, Factor),
}

/// DoRA's.
#[derive(Debug)]
struct Lengths {
    tensor: String,
    /// Of each row, or of each input channel, which is so many columns.
    of: Axis,
    /// Whether the user's strength blends the old matrix and the new one, as ComfyUI does with LyCORIS' `dora_scale`.
    /// In PEFT it multiplies the change alone, before lengths are given.
    blends: bool,
}

#[derive(Debug, Clone, Copy)]
enum Axis {
    Rows,
    Inputs { taps: usize },
}

impl Change {
    /// The change that these parts make of the tensor `(component, name)` of this shape.
    ///
    /// # Errors
    /// What is missing, or does not fit.
    pub fn new(
        lora: &Arc<LoraFile>,
        parts: &Parts,
        target: (&str, &str),
        shape: &Shape,
        strength: f32,
    ) -> Result<Self, String> {
        let what = match Orthogonal::of(lora, parts, shape)? {
            Some(rotation) => What::Rotated(rotation),
            None => added(lora, parts, target, shape)?,
        };
        Ok(Self { lora: Arc::clone(lora), strength, what })
    }

    /// Adds all changes to a tensor. Each is a change of the tensor as it was.
    pub fn add_all(changes: &[Self], tensor: &mut [f32]) {
        let reads = |change: &Self| !matches!(change.what, What::Added { lengths: None, .. });
        let base = if changes.iter().any(reads) { tensor.to_vec() } else { Vec::new() };
        for change in changes {
            let (lora, strength) = (&change.lora, change.strength);
            match &change.what {
                What::Added { form, scale, lengths: None } => form.add_to(lora, scale * strength, tensor),
                What::Added { form, scale, lengths: Some(lengths) } => {
                    lengths.add_to(lora, form.matrix(lora), [*scale, strength], &base, tensor);
                }
                What::Rotated(rotation) => rotation.add_to(lora, strength, &base, tensor),
            }
        }
    }
}

/// A change that is added.
fn added(lora: &LoraFile, parts: &Parts, target: (&str, &str), shape: &Shape) -> Result<What, String> {
    let mut left = parts.clone();
    left.remove(&Role::Alpha);
    let lengths = [Role::DoraScale, Role::Magnitude].map(|part| left.remove(&part));
    let form = form(&mut left).filter(|_| left.is_empty()).ok_or_else(|| incomplete(parts))?;
    let ([rows, columns], rank) = form.size(lora)?;
    let wanted = shape.dims().first().map(|rows| [*rows, shape.len() / (*rows).max(1)]);
    if wanted != Some([rows, columns]) {
        return Err(format!("[{rows}, {columns}] for a tensor {shape}"));
    }
    let lengths = match lengths {
        [None, None] => None,
        [Some(tensor), None] => Some(Lengths { of: axis(lora, &tensor, shape, false)?, tensor, blends: true }),
        [None, Some(tensor)] => Some(Lengths { of: axis(lora, &tensor, shape, true)?, tensor, blends: false }),
        [Some(a), Some(b)] => return Err(format!("both {a} and {b}")),
    };
    Ok(What::Added { form, scale: lora.scale(parts, target, rank)?, lengths })
}

impl Lengths {
    /// Adds a change of `base` to `sum`.
    fn add_to(&self, lora: &LoraFile, mut change: Matrix, [scale, strength]: [f32; 2], base: &[f32], sum: &mut [f32]) {
        let (factor, strength) = if self.blends { (scale, strength) } else { (scale * strength, 1.0) };
        change.data.par_iter_mut().zip(base).for_each(|(change, base)| *change = base + factor * *change);
        let wanted = lora.tensors.get(&self.tensor).map(|raw| raw.to_f32()).unwrap_or_default();
        let columns = change.columns;
        let factors = self.of.factors(&change, &wanted);
        let rows = sum.par_chunks_mut(columns).zip(base.par_chunks(columns)).zip(change.data.par_chunks(columns));
        rows.enumerate().for_each(|(row, ((sum, base), changed))| {
            for (column, ((sum, base), changed)) in sum.iter_mut().zip(base).zip(changed).enumerate() {
                *sum += strength * (factors[self.of.place(row, column)] * changed - base);
            }
        });
    }
}

impl Axis {
    /// Which length an element has a part in.
    fn place(self, row: usize, column: usize) -> usize {
        match self {
            Self::Rows => row,
            Self::Inputs { taps } => column / taps,
        }
    }

    /// What makes the lengths of `matrix` the wanted ones.
    fn factors(self, matrix: &Matrix, wanted: &[f32]) -> Vec<f32> {
        let mut squares = vec![0f64; wanted.len()];
        for (row, values) in matrix.data.chunks_exact(matrix.columns).enumerate() {
            for (column, value) in values.iter().enumerate() {
                squares[self.place(row, column)] += f64::from(*value) * f64::from(*value);
            }
        }
        // LyCORIS adds this, too, so that a length of 0 divides nothing.
        let factor = |(wanted, square): (&f32, f64)| wanted / (square.sqrt() as f32 + f32::EPSILON);
        wanted.iter().zip(squares).map(factor).collect()
    }
}

/// What DoRA's tensor holds the lengths of: PEFT's always of the rows, LyCORIS' and kohya's as its shape tells.
fn axis(lora: &LoraFile, tensor: &str, shape: &Shape, of_rows: bool) -> Result<Axis, String> {
    let stored = lora.tensors.shape(tensor).cloned().unwrap_or_default();
    let dims = shape.dims();
    let inputs = dims.get(1).copied().unwrap_or(1);
    let is_row = of_rows || stored.rank() < 2 || stored.batch() == shape.batch();
    if is_row && stored.len() == shape.batch() {
        Ok(Axis::Rows)
    } else if !of_rows && stored.len() == inputs && stored.dims().get(1) == Some(&inputs) {
        Ok(Axis::Inputs { taps: dims.iter().skip(2).product() })
    } else {
        Err(format!("{tensor} {stored} for a tensor {shape}"))
    }
}

/// Takes what a change is made of from its parts, if it is there.
fn form(parts: &mut Parts) -> Option<Form> {
    let mut factor = |whole: Option<Role>, left: Role, right: Role, core: Role, left_transposed: bool| {
        if let Some(name) = whole.and_then(|whole| parts.remove(&whole)) {
            return Some(Factor::Whole(name));
        }
        let (left, right) = (parts.remove(&left)?, parts.remove(&right)?);
        Some(match parts.remove(&core) {
            Some(core) => Factor::Core { core, left, right, left_transposed },
            None => Factor::Pair { left, right },
        })
    };
    if let Some(low) = factor(Some(Role::Diff), Role::Up, Role::Down, Role::Mid, false) {
        return Some(Form::Low(low));
    }
    if let Some(first) = factor(None, Role::HadaW1A, Role::HadaW1B, Role::HadaT1, true) {
        return Some(Form::Hadamard(first, factor(None, Role::HadaW2A, Role::HadaW2B, Role::HadaT2, true)?));
    }
    // There is no core of the first: the names of LoKr's own parts stand for it.
    let first = factor(Some(Role::LokrW1), Role::LokrW1A, Role::LokrW1B, Role::LokrW1, true)?;
    let second = factor(Some(Role::LokrW2), Role::LokrW2A, Role::LokrW2B, Role::LokrT2, true)?;
    Some(Form::Kronecker(first, second))
}

impl Form {
    /// Rows and columns of the change, and the rank that alpha is divided by.
    fn size(&self, lora: &LoraFile) -> Result<([usize; 2], Option<usize>), String> {
        let size = |factor: &Factor| factor.size(&lora.tensors);
        match self {
            Self::Low(low) => size(low),
            Self::Hadamard(first, second) => {
                let (first, second) = (size(first)?, size(second)?);
                if first.0 != second.0 {
                    return Err(format!("{:?} times {:?}", first.0, second.0));
                }
                Ok(first)
            }
            Self::Kronecker(first, second) => {
                let (([a, b], rank), ([c, d], other)) = (size(first)?, size(second)?);
                Ok(([a * c, b * d], other.or(rank)))
            }
        }
    }

    /// Adds the change times `scale`.
    fn add_to(&self, lora: &LoraFile, scale: f32, sum: &mut [f32]) {
        match self {
            Self::Low(low) => low.add_to(&lora.tensors, scale, sum),
            _ => sum.par_iter_mut().zip(self.matrix(lora).data).for_each(|(sum, change)| *sum += scale * change),
        }
    }

    fn matrix(&self, lora: &LoraFile) -> Matrix {
        let matrix = |factor: &Factor| factor.matrix(&lora.tensors);
        match self {
            Self::Low(low) => matrix(low),
            Self::Hadamard(first, second) => {
                let (mut first, second) = (matrix(first), matrix(second));
                first.data.par_iter_mut().zip(&second.data).for_each(|(first, second)| *first *= second);
                first
            }
            Self::Kronecker(first, second) => kronecker(&matrix(first), &matrix(second)),
        }
    }
}

/// `[A, B]` and `[C, D]` to `[A * C, B * D]`: the second matrix times each element of the first.
fn kronecker(first: &Matrix, second: &Matrix) -> Matrix {
    let (rows, columns) = (first.rows * second.rows, first.columns * second.columns);
    let mut data = vec![0.0; rows * columns];
    data.par_chunks_mut(columns).enumerate().for_each(|(row, out)| {
        let scales = &first.data[row / second.rows * first.columns..][..first.columns];
        let values = &second.data[row % second.rows * second.columns..][..second.columns];
        for (out, scale) in out.chunks_exact_mut(second.columns).zip(scales) {
            out.iter_mut().zip(values).for_each(|(out, value)| *out = scale * value);
        }
    });
    Matrix { rows, columns, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Generator;
    use crate::tensor::Tensor;
    use crate::weights::write_tensors;

    /// A file with these parts of one module, each with values of its own.
    fn file(parts: &[(&str, &[usize])]) -> (Arc<LoraFile>, Vec<Vec<f32>>) {
        let tensor = |(seed, (_, dims)): (usize, &(&str, &[usize]))| {
            let shape = Shape::new(*dims);
            let data = Generator::new(seed as u64).normal(shape.len());
            Tensor::new(shape, data)
        };
        let tensors: Vec<Tensor> = parts.iter().enumerate().map(tensor).collect();
        let names: Vec<String> = parts.iter().map(|(part, _)| format!("m.{part}")).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lora.safetensors");
        let named: Vec<_> = names.iter().map(String::as_str).zip(&tensors).collect();
        write_tensors(&path, &named).unwrap();
        (Arc::new(LoraFile::open(&path).unwrap()), tensors.into_iter().map(|tensor| tensor.data).collect())
    }

    /// The values of all parts, a tensor of this shape, and what it is with the change in it.
    fn changed(parts: &[(&str, &[usize])], shape: &[usize], strength: f32) -> (Vec<Vec<f32>>, Vec<f32>, Vec<f32>) {
        let (lora, values) = file(parts);
        let shape = Shape::new(shape);
        let change = Change::new(&lora, &lora.modules["m"], ("unet", "m.weight"), &shape, strength).unwrap();
        let base = Generator::new(99).normal(shape.len());
        let mut sum = base.clone();
        Change::add_all(&[change], &mut sum);
        (values, base, sum)
    }

    #[track_caller]
    fn assert_close(found: &[f32], wanted: impl Iterator<Item = f32>) {
        let wanted: Vec<f32> = wanted.collect();
        assert_eq!(found.len(), wanted.len());
        for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert!((found - wanted).abs() < 1e-4 * wanted.abs().max(1.0), "at {i}: {found}, should be {wanted}");
        }
    }

    #[test]
    fn a_core_stands_between_up_and_down() {
        let (n, p, q, i, taps) = (5, 2, 3, 4, 6);
        let parts: [(&str, &[usize]); 3] = [
            ("lora_down.weight", &[q, i, 1, 1]),
            ("lora_up.weight", &[n, p, 1, 1]),
            ("lora_mid.weight", &[p, q, 2, 3]),
        ];
        let (values, base, sum) = changed(&parts, &[n, i, 2, 3], 0.5);
        let [down, up, mid] = [&values[0], &values[1], &values[2]];
        let wanted = (0..n * i * taps).map(|at| {
            let (row, input, tap) = (at / (i * taps), at / taps % i, at % taps);
            let terms = (0..p * q).map(|pq| (pq / q, pq % q));
            let change: f32 =
                terms.map(|(a, b)| up[row * p + a] * mid[(a * q + b) * taps + tap] * down[b * i + input]).sum();
            base[at] + 0.5 * change
        });
        assert_close(&sum, wanted);
    }

    #[test]
    fn a_kronecker_product_repeats_the_second_matrix() {
        let (a, b, c, d, taps) = (3, 2, 2, 4, 4);
        let parts: [(&str, &[usize]); 3] = [("lokr_w1", &[a, b]), ("lokr_w2", &[c, d, 2, 2]), ("alpha", &[])];
        let (values, base, sum) = changed(&parts, &[a * c, b * d, 2, 2], 2.0);
        let wanted = (0..base.len()).map(|at| {
            let (row, input, tap) = (at / (b * d * taps), at / taps % (b * d), at % taps);
            let first = values[0][row / c * b + input / d];
            // Two whole matrices have no rank, so alpha means nothing.
            base[at] + 2.0 * first * values[1][(row % c * d + input % d) * taps + tap]
        });
        assert_close(&sum, wanted);
    }

    const LOW: [(&str, &[usize]); 2] = [("lora_down.weight", &[2, 6]), ("lora_up.weight", &[4, 2])];

    #[test]
    fn half_of_lycoris_lengths_is_the_middle_of_old_and_new() {
        for lengths in [&[4, 1][..], &[1, 6]] {
            let parts = [LOW[0], LOW[1], ("dora_scale", lengths)];
            let (_, base, whole) = changed(&parts, &[4, 6], 1.0);
            let (_, _, half) = changed(&parts, &[4, 6], 0.5);
            assert_close(&half, base.iter().zip(&whole).map(|(old, new)| (old + new) / 2.0));
        }
    }

    #[test]
    fn pefts_lengths_are_those_of_the_rows_at_every_scale() {
        for strength in [0.0, 0.5, 1.0] {
            let parts = [LOW[0], LOW[1], ("lora_magnitude_vector", &[4][..])];
            let (values, base, sum) = changed(&parts, &[4, 6], strength);
            let length = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
            assert_close(&sum.chunks(6).map(length).collect::<Vec<_>>(), values[2].iter().map(|v| v.abs()));
            let signs = values[2].iter().flat_map(|v| [v.signum(); 6]);
            let same_direction = sum.iter().zip(&base).zip(signs).all(|((new, old), sign)| new * old * sign > 0.0);
            assert_eq!(same_direction, strength == 0.0);
        }
    }
}
