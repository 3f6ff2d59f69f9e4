//! A row of a report: one op at one set of shapes on one device.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::compare::Change;
use super::measure::{Measured, Timing};
use crate::error::{Error, Result};
use crate::gpu::statistics;
use crate::graph::plan::Storage;
use crate::lab::ceilings::Ceilings;
use crate::lab::suite::Workload;
use crate::ops::Case;
use crate::tensor::DType;

/// What became of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The output is the reference's within the tolerance.
    Right,
    /// The output is not the reference's, so it was not timed.
    Wrong,
    /// The shapes exceed the device's limits.
    Refused,
    /// The kernel does not compile, or the device failed.
    Failed,
    /// A node of a network, which ran and was finite; `validate` compares.
    #[default]
    Unchecked,
}

/// One op at one set of shapes on one device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    /// Name and backend.
    pub device: String,
    /// The op's name.
    pub op: String,
    /// The variant's name, or `reference` on the CPU.
    pub variant: String,
    /// Of activations, and of matrices of parameters.
    pub dtype: String,
    /// Type of matrices of parameters.
    pub weights: String,
    /// Whether the variant multiplies cooperative matrices, whose ceiling is then that of its arithmetic.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub matrices: bool,
    /// The op's attributes.
    pub attributes: String,
    /// Of the inputs.
    pub shapes: Vec<Vec<usize>>,
    /// The network's node, where a network was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Networks with such nodes, and how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub uses: BTreeMap<String, usize>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it is not right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The line of a kernel's text in which it is, and one that points there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excerpt: Vec<String>,
    /// Whether that is a kernel's text, which fails every row that runs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub does_not_compile: bool,
    /// `‖out − ref‖₂ / ‖ref‖₂`, where it was compared.
    pub relative_error: Option<f64>,
    /// Of one run: floating-point operations, and bytes of the inputs and the output as the device stores them.
    pub flops: u64,
    /// Bytes of the inputs and the output, as the device stores them.
    pub bytes: u64,
    /// How long a run takes, if it was timed.
    #[serde(flatten)]
    pub timing: Option<Timing>,
    /// How fast that is.
    #[serde(flatten)]
    pub rates: Option<Rates>,
    /// What the driver says of the kernel, where it tells.
    #[serde(flatten)]
    pub compiled: statistics::Summary,
    /// What an earlier report says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Change>,
}

impl Row {
    /// A row without a time.
    ///
    /// # Errors
    /// If the case contradicts its op's shape rule.
    pub fn new(device: &str, workload: &Workload, variant: &str, storage: Storage, verdict: Verdict) -> Result<Self> {
        let Workload { case, uses } = workload;
        let types = case.types();
        let output = case.op.output(&types)?;
        let read =
            types.iter().enumerate().map(|(i, ty)| case.op.reads(&types, &output, i) * storage.element_size(ty.kind));
        let bytes = read.sum::<usize>() + output.device_len() * storage.element_size(output.kind);
        Ok(Self {
            device: device.into(),
            op: case.op.name().into(),
            variant: variant.into(),
            dtype: storage.act.to_string(),
            weights: storage.weight.to_string(),
            attributes: format!("{:?}", case.op),
            shapes: types.iter().map(|ty| ty.shape.dims().to_vec()).collect(),
            uses: uses.clone(),
            verdict,
            flops: case.op.flops(&types, &output),
            bytes: bytes as u64,
            ..Self::default()
        })
    }

    /// Puts in what comparing with the reference gave.
    pub fn judge(&mut self, checked: &Measured) {
        self.verdict = Verdict::Right;
        self.relative_error = Some(checked.relative_error);
        if let Some(fault) = &checked.fault {
            self.verdict = Verdict::Wrong;
            self.reason = Some(format!("not timed: {fault}"));
        }
    }

    /// Puts in why it did not run.
    pub fn fail(&mut self, why: &Error) {
        self.verdict = Verdict::Failed;
        self.does_not_compile = matches!(why, Error::Shader(_));
        self.excerpt = why.excerpt().to_vec();
        self.reason = Some(why.to_string());
    }

    /// Puts in the rates, if there is a time.
    pub fn rate(&mut self, ceilings: &Ceilings, dtype: DType) {
        let seconds = self.timing.as_ref().map(|timing| timing.summary.median);
        self.rates = seconds.map(|seconds| {
            Rates::new([self.flops, self.bytes], seconds, ceilings.gflop_s(dtype, self.matrices), ceilings)
        });
    }

    /// Whether it is of this case: the same op, attributes and shapes.
    pub fn is_of(&self, case: &Case) -> bool {
        self.attributes == format!("{:?}", case.op)
            && self.shapes.iter().map(Vec::as_slice).eq(case.inputs.iter().map(|(ty, _)| ty.shape.dims()))
    }

    /// The word for why its time may be worth little.
    pub fn warning(&self) -> Option<&str> {
        self.timing.as_ref()?.warnings.first()?.split(':').next()
    }

    /// Whether the kernel must not be used as it is.
    pub fn is_bad(&self) -> bool {
        matches!(self.verdict, Verdict::Wrong | Verdict::Failed)
    }
}

/// How fast, and how close to the ceilings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Operations a second, in 10^9.
    pub gflop_s: f64,
    /// Bytes a second, in 10^9.
    pub gb_s: f64,
    /// Of multiply-adds, or on the CPU executor of its matrix product.
    pub share_of_arithmetic: f64,
    /// Of the bytes a second of a copy.
    pub share_of_copy: f64,
    /// The larger of the two: of the ceiling that this op would meet first.
    pub share_of_roof: f64,
}

impl Rates {
    /// Of the operations and bytes that took `seconds`, against the rate of arithmetic and the other ceilings of the
    /// device.
    pub fn new([flops, bytes]: [u64; 2], seconds: f64, arithmetic: f64, ceilings: &Ceilings) -> Self {
        let seconds = seconds.max(1e-12);
        let (gflop_s, gb_s) = (flops as f64 / seconds / 1e9, bytes as f64 / seconds / 1e9);
        let share = |rate: f64, most: f64| if most > 0.0 { rate / most } else { 0.0 };
        let share_of_arithmetic = share(gflop_s, arithmetic);
        let share_of_copy = share(gb_s, ceilings.copy_gb_s);
        let share_of_roof = share_of_arithmetic.max(share_of_copy);
        Self { gflop_s, gb_s, share_of_arithmetic, share_of_copy, share_of_roof }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Clock;
    use crate::lab::bench::stats::Summary;
    use crate::lab::bench::verdict;
    use crate::lab::suite;

    const CEILINGS: Ceilings = Ceilings {
        copy_gb_s: 10.0,
        fma_f32_gflop_s: Some(100.0),
        fma_f16_gflop_s: None,
        matrix_gflop_s: Some(800.0),
        product_gflop_s: None,
        launch_us: None,
        upload_gb_s: None,
        download_gb_s: None,
        spread: 0.0,
    };
    const F32: Storage = Storage { act: DType::F32, weight: DType::F32 };

    fn row() -> Row {
        Row::new("cpu", &suite::cases()[0], "reference", F32, Verdict::Unchecked).unwrap()
    }

    #[test]
    fn the_share_of_the_roof_is_that_of_the_nearer_ceiling() {
        let rates = Rates::new([50_000_000_000, 1_000_000_000], 1.0, 100.0, &CEILINGS);
        assert_eq!((rates.gflop_s, rates.gb_s), (50.0, 1.0));
        assert_eq!((rates.share_of_arithmetic, rates.share_of_copy, rates.share_of_roof), (0.5, 0.1, 0.5));
        let rates = Rates::new([1_000_000_000, 9_000_000_000], 1.0, 100.0, &CEILINGS);
        assert_eq!(rates.share_of_roof, 0.9);
    }

    #[test]
    fn a_row_of_matrices_is_held_against_their_ceiling() {
        let summary = Summary::of(&[1.0]);
        let share = |matrices| {
            let mut row = Row { matrices, flops: 80_000_000_000, ..row() };
            row.timing = Some(Timing { summary, clock: Clock::Wall, repeats: 1, warnings: Vec::new() });
            row.rate(&CEILINGS, DType::F16);
            row.rates.unwrap().share_of_arithmetic
        };
        assert_eq!((share(true), share(false)), (0.1, 0.8));
    }

    #[test]
    fn a_row_survives_its_json() {
        let mut row = row();
        row.judge(&Measured { relative_error: 0.0, fault: None, watch: None });
        let summary = Summary::of(&[0.5]);
        row.timing = Some(Timing { summary, clock: Clock::Wall, repeats: 3, warnings: Vec::new() });
        row.rate(&CEILINGS, DType::F32);
        row.compiled = statistics::Summary { registers: Some(96), spills: Some(0), ..Default::default() };
        let json = serde_json::to_value(&row).unwrap();
        let keys =
            ["op", "variant", "dtype", "shapes", "median", "spread", "clock", "gflop_s", "gb_s", "share_of_roof"];
        for key in keys.into_iter().chain(["registers", "spills"]) {
            assert!(!json[key].is_null(), "{key}: {json}");
        }
        let back: Row = serde_json::from_value(json).unwrap();
        assert_eq!((back.timing, back.rates, back.compiled), (row.timing, row.rates, row.compiled));
    }

    #[test]
    fn a_wrong_row_is_not_timed_and_fails_the_run() {
        let mut row = row();
        row.judge(&Measured { relative_error: 0.5, fault: Some("it is off".into()), watch: None });
        assert_eq!((row.verdict, row.timing.is_none()), (Verdict::Wrong, true));
        assert!(verdict(&[row]).unwrap_err().to_string().contains("1 of 1"));
    }
}
