//! How long a network should take on a card that is not at hand: from the card's data sheet (`cards.toml`), from what
//! Mesa's compilers make of the kernels (`bounds.toml`, see `benches/ghost`), and from each node's counted work. The
//! first who has such a card can refute it: `bench` prints it next to what it measures.
//!
//! A node takes `max(arithmetic, memory) + LAUNCH` (a roofline: Williams et al. 2009), by the variant for which that is
//! the least, as tuning would find: arithmetic is `flops / (peak · bound · fill)`, memory `bytes / (bandwidth ·
//! COPIED)`. `bound` is the share of the peak that the instructions and the workgroup memory of the kernel's loop
//! allow, `fill` how much of the card the workgroups occupy, in rounds of one for each unit. Caches, latency that too
//! few subgroups hide, and clocks below the data sheet's are not in it, so a card will be slower rather than faster.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::bench::{Row, Verdict};
use super::ceilings::Ceilings;
use super::suite::Workload;
use crate::caps::Caps;
use crate::error::Result;
use crate::graph::Graph;
use crate::graph::plan::Storage;
use crate::ops::{Case, Variant};
use crate::tensor::DType;

/// The share of a memory's bandwidth that a copy reaches.
const COPIED: f64 = 0.8;
/// Seconds from the end of a kernel to the start of the next, which waits for it.
const LAUNCH: f64 = 4e-6;

/// A card by its data sheet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// What its driver says of it; the name is a part of the adapter's.
    pub caps: Caps,
    /// The GPU of `bounds.toml`; none has no bounds.
    #[serde(default)]
    compiled: String,
    /// 10^9 operations a second in f32.
    gflop_s: f64,
    /// The same of f16 matrices with sums in f32.
    matrix_gflop_s: Option<f64>,
    /// 10^9 bytes a second.
    gb_s: f64,
    /// What runs whole workgroups.
    units: u64,
}

/// Seconds of one run of a network, and what they consist of.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Predicted {
    /// The network's name.
    pub network: String,
    /// All of it.
    pub seconds: f64,
    /// Of nodes that arithmetic bounds.
    pub arithmetic: f64,
    /// Of nodes that memory bounds.
    pub memory: f64,
    /// Between the nodes.
    pub launches: f64,
    /// Of which card, or that it is the least for the rates that were measured.
    pub source: String,
}

/// Every card of `cards.toml`.
pub fn cards() -> &'static [Card] {
    #[derive(Deserialize)]
    struct Cards {
        cards: Vec<Card>,
    }
    static CARDS: LazyLock<Vec<Card>> = LazyLock::new(|| {
        // The text is part of the program, so a mistake in it is one of this source; a test reads it.
        let cards: Cards = toml::from_str(include_str!("predict/cards.toml")).expect("cards.toml can be understood");
        cards.cards
    });
    &CARDS
}

/// For each GPU, of `op variant` the share of its peak.
fn bounds() -> &'static HashMap<String, HashMap<String, f64>> {
    static BOUNDS: LazyLock<HashMap<String, HashMap<String, f64>>> =
        LazyLock::new(|| toml::from_str(include_str!("predict/bounds.toml")).expect("bounds.toml can be understood"));
    &BOUNDS
}

impl Card {
    /// The adapter's card, if it is a known one, or else one that does what was measured and nothing better: then the
    /// prediction is the least that the network can take.
    pub fn at_hand(caps: &Caps, measured: &Ceilings, act: DType) -> Self {
        // Of `RTX 3060` and `RTX 3060 Ti` the longer.
        let known = cards().iter().filter(|card| caps.name.contains(&card.caps.name)).max_by_key(|c| c.caps.name.len());
        let unknown = || Self {
            caps: caps.clone(),
            compiled: String::new(),
            gflop_s: measured.gflop_s(act, false),
            matrix_gflop_s: measured.matrix_gflop_s,
            gb_s: measured.copy_gb_s / COPIED,
            units: 1,
        };
        known.cloned().unwrap_or_else(unknown)
    }

    /// The share of the peak that a kernel can reach: of one that is not known the least of its op's, and 1 of an op
    /// without a loop that multiplies.
    fn bound(&self, op: &str, variant: &str) -> f64 {
        let all = bounds().get(&self.compiled).into_iter().flatten();
        let of_op: Vec<_> =
            all.filter_map(|(name, bound)| Some((name.strip_prefix(op)?.strip_prefix(' ')?, *bound))).collect();
        let known = of_op.iter().find(|(name, _)| *name == variant);
        known.map_or_else(|| of_op.iter().fold(1.0, |least, (_, bound)| bound.min(least)), |(_, bound)| *bound)
    }

    /// Seconds of arithmetic and of memory.
    fn node(&self, row: &Row, variant: &Variant) -> [f64; 2] {
        let bound = self.bound(&row.op, variant.name);
        let peak = variant.launch.matrix.and(self.matrix_gflop_s).unwrap_or(self.gflop_s);
        let groups: u64 = variant.launch.workgroups.iter().map(|side| u64::from(*side)).product();
        let fill = groups as f64 / groups.next_multiple_of(self.units).max(1) as f64;
        [row.flops as f64 / (peak * 1e9 * bound * fill), row.bytes as f64 / (self.gb_s * 1e9 * COPIED)]
    }

    /// One run of a network, all of whose nodes are stored so.
    ///
    /// # Errors
    /// If a node exceeds the card's limits.
    pub fn network(&self, graph: &Graph, storage: Storage) -> Result<Predicted> {
        let caps = self.caps.storing(storage.act, storage.weight);
        let source = match &*self.compiled {
            "" => "or more, by the rates measured here".into(),
            _ => format!("by the data sheet of {}", self.caps.name),
        };
        let mut all = Predicted { network: graph.network.clone(), source, ..Predicted::default() };
        for node in &graph.nodes {
            let case = Case::of(Arc::clone(&node.op), graph.types(&node.inputs));
            let variants = case.variants(&caps).map_err(|error| error.at(&node.name))?;
            let row = Row::new("", &Workload::of(case), "", storage, Verdict::Unchecked)?;
            let times = variants.iter().map(|variant| self.node(&row, variant));
            let fastest = times.min_by(|a, b| a[0].max(a[1]).total_cmp(&b[0].max(b[1])));
            let [arithmetic, memory] = fastest.unwrap_or_default();
            let part = if arithmetic > memory { &mut all.arithmetic } else { &mut all.memory };
            *part += arithmetic.max(memory);
            all.launches += LAUNCH;
        }
        all.seconds = all.arithmetic + all.memory + all.launches;
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::published::SD15;

    fn unet() -> Graph {
        SD15.networks(SD15.latent, 2).unwrap().swap_remove(1)
    }

    const F16: Storage = Storage { act: DType::F16, weight: DType::F16 };

    #[test]
    fn every_card_has_bounds_and_another_name() {
        for card in cards() {
            assert!(bounds().contains_key(&card.compiled), "{}", card.caps.name);
            let same = cards().iter().filter(|other| other.caps.name == card.caps.name);
            assert_eq!(same.count(), 1);
        }
    }

    #[test]
    fn every_product_that_a_card_prefers_has_a_bound() {
        for card in cards() {
            for case in ["matmul", "conv2d", "attention"].iter().flat_map(|op| of_op(op)) {
                let first = case.variants(&card.caps).unwrap().swap_remove(0).name;
                let name = format!("{} {first}", case.op.name());
                assert!(bounds()[&card.compiled].contains_key(&name), "{} {name}", card.caps.name);
            }
        }
    }

    fn of_op(op: &str) -> Vec<Case> {
        let graph = unet();
        let nodes = graph.nodes.iter().filter(|node| node.op.name() == op);
        nodes.map(|node| Case::of(Arc::clone(&node.op), graph.types(&node.inputs))).collect()
    }

    #[test]
    fn no_pass_takes_less_than_its_arithmetic_at_the_peak() {
        let graph = unet();
        for card in cards() {
            let predicted = card.network(&graph, F16).unwrap();
            let peak = card.matrix_gflop_s.unwrap_or(card.gflop_s) * 1e9;
            assert!(predicted.seconds > graph.flops() as f64 / peak, "{} {predicted:?}", card.caps.name);
        }
    }

    #[test]
    fn the_longest_name_that_an_adapter_has_is_its_card() {
        let caps = Caps { name: "AMD Radeon RX 7900 XTX (RADV NAVI31)".into(), ..Caps::webgpu_default() };
        assert_eq!(Card::at_hand(&caps, &Ceilings::default(), DType::F16).compiled, "navi31");
    }

    #[test]
    fn an_unknown_card_is_as_fast_as_it_was_measured() {
        let measured = Ceilings { copy_gb_s: 50.0, fma_f32_gflop_s: Some(1000.0), ..Ceilings::default() };
        let card = Card::at_hand(&Caps::webgpu_default(), &measured, DType::F32);
        let graph = unet();
        let predicted = card.network(&graph, Storage { act: DType::F32, weight: DType::F32 }).unwrap();
        assert!(predicted.arithmetic <= graph.flops() as f64 / 1e12 && predicted.arithmetic > 0.0);
        assert!((predicted.launches - LAUNCH * graph.nodes.len() as f64).abs() < 1e-9);
    }
}
