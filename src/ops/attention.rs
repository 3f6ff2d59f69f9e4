//! `y[b, t, h, :] = sum_s w_ts v[b, s, h, :]`, w the softmax over s of `q[b, t, h, :] · k[b, s, h, :] / sqrt(D)`: q
//! `[B, Tq, C]`, k and v `[B, Tk, C]` to `[B, Tq, C]`. Head h has the channels `h*D..(h+1)*D`, `D = C/heads`; there
//! may be more dimensions than one between the first and the last. Or the one input `[B, T, 3C]`, which holds q, k and
//! v side by side. Self- and cross-attention of the U-Net, causal attention of the text encoders, the VAE's one head
//! of 512 channels (PyTorch `scaled_dot_product_attention`).
//!
//! Scores exist for a tile at a time only: sums over the keys so far are scaled down whenever a larger score turns up
//! (Milakov and Gimelshein 2018, Dao et al. 2022).

mod coop;

use super::host::attention::Heads;
use super::{Binding, Case, Inputs, Kind, Launch, Op, Tiles, Ty, Variant, expect, expect_shape};
use crate::caps::Caps;
use crate::error::{Error, Field, Remedy, Result};
use crate::ops::case::{Fill, large, subnormal};
use crate::tensor::{Shape, Tensor};

/// Attention of several heads, whose queries, keys and values are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Heads, which share the channels.
    pub heads: usize,
    /// Token t sees the tokens 0..=t.
    pub causal: bool,
}

/// Queries of a workgroup, keys of a tile, and channels that scores are summed over at once.
const TILE: usize = 32;
/// Output channels that the portable core's threads sum up at a time, and how often their sums fit registers.
const CHUNK: usize = 64;
const MOST_CHUNKS: usize = 3;
/// How often TILE channels of the queries fit workgroup memory.
const MOST_Q_PARTS: usize = 2;
/// Output channels of a workgroup of the core for software devices, whose compiler takes minutes for more.
const BROADCAST_CHANNELS: usize = 80;

/// Where q, k and v are among the inputs.
struct Layout {
    /// Channels of one of them.
    width: usize,
    /// Channels from one token of an input to the next.
    row: usize,
    /// The first channel of each in its input.
    at: [usize; 3],
    /// Which input each is.
    input: [usize; 3],
}

impl Layout {
    /// Of this number of inputs, the first of this shape.
    fn of(inputs: usize, first: &Shape) -> Self {
        let (row, third) = (first.channels(), first.channels() / 3);
        match inputs {
            1 => Self { width: third, row, at: [0, third, 2 * third], input: [0; 3] },
            _ => Self { width: row, row, at: [0; 3], input: [0, 1, 2] },
        }
    }
}

/// The shape of k and v.
fn keys_of<T>(inputs: &[T]) -> &T {
    &inputs[inputs.len().min(2) - 1]
}

/// Tokens of a batch entry.
fn tokens(shape: &Shape) -> usize {
    shape.rows() / shape.batch()
}

impl Attention {
    fn check_heads(&self, channels: usize) -> Result<()> {
        if self.heads == 0 || !channels.is_multiple_of(self.heads) {
            return Err(Error::shape(format!("{channels} channels do not divide into {} heads", self.heads)));
        }
        Ok(())
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn output(&self, inputs: Inputs) -> Result<Ty> {
        if let [packed] = inputs {
            expect("attention", inputs, &[("q, k and v", Kind::Act)])?;
            let channels = packed.shape.channels();
            if packed.shape.rank() < 2 || channels % 3 != 0 {
                let wanted = "[batch, .., 3 channels]";
                let what = format!("attention: q, k and v in one should be {wanted}, found {}", packed.shape);
                return Err(Error::shape(what));
            }
            self.check_heads(channels / 3)?;
            return Ok(Ty::act(packed.shape.with_channels(channels / 3)));
        }
        expect("attention", inputs, &["q", "k", "v"].map(|what| (what, Kind::Act)))?;
        let (q, k) = (&inputs[0].shape, &inputs[1].shape);
        if q.rank() < 2 || k.rank() < 2 || (q.batch(), q.channels()) != (k.batch(), k.channels()) {
            let wanted = "[batch, .., channels] with the same batch and channels";
            return Err(Error::shape(format!("attention: q and k should be {wanted}, found {q} and {k}")));
        }
        expect_shape(inputs, 2, "attention: v", k)?;
        self.check_heads(q.channels())?;
        if self.causal && q.rows() != k.rows() {
            return Err(Error::shape(format!("causal attention takes as many keys as queries, found {q} and {k}")));
        }
        Ok(inputs[0].clone())
    }

    fn execute(&self, inputs: &[&Tensor], y: &mut Tensor) {
        let Layout { row, at, input, .. } = Layout::of(inputs.len(), &inputs[0].shape);
        let [q, k, v] = [0, 1, 2].map(|i| &inputs[input[i]].data[at[i]..]);
        let (queries, keys) = (tokens(&y.shape), tokens(&keys_of(inputs).shape));
        let &Self { heads, causal } = self;
        let d = y.shape.channels() / heads;
        Heads { q, k, v, row, queries, keys, heads, d, causal }.attend(&mut y.data);
    }

    fn variants(&self, inputs: Inputs, output: &Ty, caps: &Caps) -> Result<Vec<Variant>> {
        let shape = &output.shape;
        let d = shape.channels() / self.heads;
        if !d.is_multiple_of(4) {
            let what = format!("attention heads of {d} channels: the kernel takes multiples of 4");
            return Err(Error::shape(what).remedies([Remedy::set(Field::Device, "cpu")]));
        }
        let (queries, pairs) = (tokens(shape), shape.batch() * self.heads);
        let keys = tokens(&keys_of(inputs).shape);
        let Layout { row, at, input, .. } = Layout::of(inputs.len(), &inputs[0].shape);
        let mut all = Launch::new("attention", 3);
        all.bindings = input.map(Binding::Input).into_iter().chain([Binding::Output, Binding::Params]).collect();
        let launch = |tile: usize, chunks: usize| {
            let tiles = Tiles { count: queries.div_ceil(tile), folded: false };
            all.clone()
                .tiled(tiles)
                .constant("CAUSAL", self.causal)
                .param("queries", queries)
                .param("keys", keys)
                .param("heads", self.heads)
                .param("head_vectors", d / 4)
                .param("q_row", row / 4)
                .param("kv_row", row / 4)
                .param("k_first", at[1] / 4)
                .param("v_first", at[2] / 4)
                .param_f32("scale", (d as f32).sqrt().recip())
                .workgroups([tiles.count, pairs, chunks].map(|n| n as u32))
        };
        let ends = |rounds: usize| caps.loop_rounds.is_none_or(|most| rounds <= most as usize);
        let mut variants = Vec::new();
        let chunks = d.div_ceil(BROADCAST_CHANNELS);
        if caps.broadcasts() && ends(keys.div_ceil(8) * (1 + d.div_ceil(32) * usize::from(chunks > 1))) {
            let broadcast = launch(TILE, chunks)
                .core("attention_broadcast")
                .constant("HEAD_VECTORS", (d / 4) as u32)
                .constant("CHUNK_VECTORS", d.div_ceil(4 * chunks) as u32);
            variants.push(Variant { name: "broadcast", launch: broadcast });
        }
        let chunks = d.div_ceil(CHUNK * MOST_CHUNKS);
        let (width, parts) = (d.div_ceil(CHUNK * chunks), d.div_ceil(TILE));
        // A tile of keys: its scores TILE channels at a time, the softmax, and the output's parts by two times 16 keys.
        if ends(keys.div_ceil(TILE) * (5 * parts + 22 + 10 * width)) {
            let tile = launch(TILE, chunks)
                .core("attention_tile")
                .constant("CHUNKS", width as u32)
                .constant("Q_PARTS", if parts <= MOST_Q_PARTS { parts as u32 } else { 1 });
            variants.push(Variant { name: "portable", launch: tile });
        }
        if let Some((coops, lanes)) = coop::offered(d, caps) {
            let variant = |coop: coop::Coop| {
                let launch = coop.launch(launch(coop.queries(), coop.chunks), lanes);
                Variant { name: coop.name, launch }
            };
            let at = if caps.fast_matrices() { 0 } else { variants.len() };
            let coops = coops.into_iter().filter(|coop| ends(coop.rounds(keys, lanes)));
            variants.splice(at..at, coops.map(variant));
        }
        if variants.is_empty() {
            let remedies = [Remedy::set(Field::Device, "cpu"), Remedy::Less(Field::Width), Remedy::Less(Field::Height)];
            let what = format!("attention over {keys} keys of {d} channels: {} ends such long loops", caps.name);
            return Err(Error::device(format!("{what} too early")).remedies(remedies));
        }
        Ok(variants)
    }

    /// Those of the two products, of visible keys.
    fn flops(&self, inputs: Inputs, output: &Ty) -> u64 {
        let keys = tokens(&keys_of(inputs).shape) as u64;
        let seen_twice = if self.causal { keys + 1 } else { 2 * keys };
        2 * seen_twice * output.shape.len() as u64
    }

    fn sum_length(&self, inputs: Inputs) -> Option<usize> {
        let width = Layout::of(inputs.len(), &inputs[0].shape).width;
        Some(tokens(&keys_of(inputs).shape).max(width / self.heads))
    }
}

fn case(causal: bool, heads: usize, d: usize, q: &[usize], k: &[usize]) -> Case {
    let ty = |rows: &[usize]| Ty::act(Shape::new([rows, &[heads * d]].concat()));
    Case::new(Attention { heads, causal }, [ty(q), ty(k), ty(k)])
}

/// Small awkward shapes, and some of real models: the op's row of [`TABLE`](crate::ops::TABLE) has them.
pub fn cases() -> Vec<Case> {
    let packed = |causal, heads: usize, d: usize, x: &[usize]| {
        Case::new(Attention { heads, causal }, [Ty::act(Shape::new([x, &[3 * heads * d]].concat()))])
    };
    vec![
        packed(false, 2, 40, &[2, 5, 13]),
        packed(true, 3, 12, &[2, 33]),
        packed(false, 1, 512, &[1, 5, 8]),
        case(false, 1, 8, &[1, 1], &[1, 1]),
        case(false, 3, 12, &[2, 33], &[2, 5]),
        case(true, 2, 64, &[2, 77], &[2, 77]),
        case(false, 2, 40, &[1, 5, 13], &[1, 77]),
        // A prompt of three chunks.
        case(false, 2, 40, &[2, 5, 13], &[2, 231]),
        case(false, 1, 160, &[1, 8, 8], &[1, 8, 8]),
        case(false, 2, 168, &[1, 31], &[1, 65]),
        case(false, 1, 512, &[1, 5, 8], &[1, 5, 8]),
        case(false, 8, 40, &[2, 16, 16], &[2, 16, 16]),
        // Just under, on and over a tile of queries and of keys.
        case(false, 1, 16, &[1, 31], &[1, 33]),
        case(false, 1, 16, &[1, 32], &[1, 32]),
        case(true, 1, 16, &[1, 33], &[1, 33]),
        // Values near f16's end, and those that it holds as subnormals.
        case(false, 2, 12, &[1, 9], &[1, 40]).fill(2, Fill::With(large)),
        case(false, 2, 12, &[1, 9], &[1, 40]).fill(2, Fill::With(subnormal)),
        // Large scores, so that the running maximum matters.
        case(false, 2, 32, &[2, 40], &[2, 130]).fill(0, Fill::Normal(8.0)),
    ]
}

/// What a full check adds: the tokens of SD 1.5's U-Net and of SDXL's, with themselves and with a text, and those of
/// both VAEs.
pub(super) fn largest(_: &Caps) -> Vec<Case> {
    vec![
        case(false, 8, 40, &[2, 64, 64], &[2, 64, 64]),
        case(false, 10, 64, &[2, 64, 64], &[2, 64, 64]),
        case(false, 10, 64, &[2, 64, 64], &[2, 77]),
        case(false, 1, 512, &[1, 64, 64], &[1, 64, 64]),
        case(false, 1, 512, &[1, 128, 128], &[1, 128, 128]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::attention::BLOCK_KEYS;
    use crate::rng::Generator;
    use crate::tensor::DType;

    fn normal(seed: u64, shape: [usize; 3]) -> Tensor {
        Tensor::new(shape, Generator::new(seed).normal(shape.iter().product()))
    }

    /// The definition in f64, with all scores of a query at once.
    fn plain(op: Attention, q: &Tensor, k: &Tensor, v: &Tensor) -> Vec<f64> {
        let (c, queries, keys) = (q.shape.channels(), tokens(&q.shape), tokens(&k.shape));
        let d = c / op.heads;
        let mut y = Vec::new();
        for i in 0..q.shape.len() {
            let (row, channel) = (i / c, i % c);
            let (batch, t) = (row / queries, row % queries);
            let at = |x: &Tensor, row: usize, channel: usize| f64::from(x.data[row * c + channel]);
            let first = channel / d * d;
            let seen = if op.causal { t + 1 } else { keys };
            let score = |s| (first..first + d).map(|j| at(q, row, j) * at(k, batch * keys + s, j)).sum::<f64>();
            let weights: Vec<f64> = (0..seen).map(|s| (score(s) / (d as f64).sqrt()).exp()).collect();
            let sum: f64 = weights.iter().enumerate().map(|(s, w)| w * at(v, batch * keys + s, channel)).sum();
            y.push(sum / weights.iter().sum::<f64>());
        }
        y
    }

    fn agrees(op: Attention, queries: usize, keys: usize) {
        let c = op.heads * 6;
        let [q, k, v] = [(1, queries), (2, keys), (3, keys)].map(|(seed, n)| normal(seed, [2, n, c]));
        let y = op.reference(&[&q, &k, &v], &q.shape);
        for (i, (y, wanted)) in y.data.iter().zip(plain(op, &q, &k, &v)).enumerate() {
            assert!((f64::from(*y) - wanted).abs() < 2e-6, "{op:?} at {i}: {y} should be {wanted}");
        }
    }

    #[test]
    fn the_reference_is_the_definition_beyond_one_block_of_keys() {
        agrees(Attention { heads: 2, causal: false }, 9, BLOCK_KEYS + 3);
        agrees(Attention { heads: 1, causal: false }, 1, 1);
    }

    #[test]
    fn one_input_that_holds_all_three_gives_what_three_do() {
        let op = Attention { heads: 2, causal: false };
        let parts = [1, 2, 3].map(|seed| normal(seed, [2, 9, 12]));
        let rows = (0..18).flat_map(|row| parts.iter().flat_map(move |part| &part.data[row * 12..][..12]));
        let packed = Tensor::new([2, 9, 36], rows.copied().collect());
        let [q, k, v] = &parts;
        assert_eq!(op.reference(&[&packed], &q.shape), op.reference(&[q, k, v], &q.shape));
    }

    #[test]
    fn causal_attention_hides_the_future_in_every_block() {
        agrees(Attention { heads: 1, causal: true }, BLOCK_KEYS + 9, BLOCK_KEYS + 9);
    }

    #[test]
    fn scores_of_any_size_are_exponentiated_without_overflow() {
        let q = Tensor::new([1, 1, 4], vec![1e18; 4]);
        let k = Tensor::new([1, 2, 4], vec![-1e18, -1e18, -1e18, -1e18, 1e18, 1e18, 1e18, 1e18]);
        let v = Tensor::new([1, 2, 4], vec![1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        let op = Attention { heads: 1, causal: false };
        assert_eq!(op.reference(&[&q, &k, &v], &q.shape).data, [2.0; 4]);
    }

    #[test]
    fn wide_heads_are_shared_out_among_workgroups() {
        let launch = |d: usize| {
            let x = Ty::act([1, 33, d]);
            let inputs = [x.clone(), x.clone(), x.clone()];
            Attention { heads: 1, causal: false }.launch(&inputs, &x, &Caps::webgpu_default())
        };
        assert_eq!(launch(160).unwrap().workgroups, [2, 1, 1]);
        let wide = launch(512).unwrap();
        assert_eq!((wide.workgroups, wide.constants[1]), ([2, 1, 3], ("CHUNKS", 3.0)));
        assert!(launch(42).unwrap_err().to_string().contains("heads of 42 channels"));
    }

    #[test]
    fn more_keys_than_a_drivers_loops_get_through_are_refused() {
        let caps = Caps { loop_rounds: Some(65_535), ..Caps::kinds(false, DType::F32, DType::F32).remove(1) };
        let names = |keys: usize| -> Result<Vec<_>> {
            let inputs = [(); 3].map(|()| Ty::act([1, keys, 512]));
            let variants = Attention { heads: 1, causal: false }.variants(&inputs, &inputs[0], &caps)?;
            Ok(variants.into_iter().map(|v| v.name).collect())
        };
        assert_eq!(names(4096).unwrap(), ["broadcast", "portable"]);
        assert_eq!(names(16_384).unwrap(), ["broadcast"]);
        assert!(names(65_536).unwrap_err().to_string().contains("65536 keys of 512 channels"));
    }

    #[test]
    fn misfits_are_named() {
        let op = Attention { heads: 4, causal: false };
        let error = |q, k, v| op.output(&[Ty::act(q), Ty::act(k), Ty::act(v)]).unwrap_err().to_string();
        assert!(error([2, 9, 8], [1, 7, 8], [1, 7, 8]).contains("found [2, 9, 8] and [1, 7, 8]"));
        assert!(error([2, 9, 8], [2, 7, 8], [2, 6, 8]).contains("v should be [2, 7, 8], found [2, 6, 8]"));
        assert!(error([2, 9, 6], [2, 7, 6], [2, 7, 6]).contains("6 channels do not divide into 4 heads"));
        let packed = |shape: [usize; 3]| op.output(&[Ty::act(shape)]).unwrap_err().to_string();
        assert!(packed([2, 9, 16]).contains("should be [batch, .., 3 channels], found [2, 9, 16]"));
        assert!(packed([2, 9, 18]).contains("6 channels do not divide into 4 heads"));
    }
}
