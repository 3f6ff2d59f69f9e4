//! That no variant is offered to a device which its own text cannot run on: shown over devices that are made up.

use std::collections::HashMap;

use naga::proc::Layouter;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Literal, Module};

use super::{Dialect, Sources, prepare};
use crate::caps::Caps;
use crate::graph::plan::Storage;
use crate::ops::{TABLE, Variant};
use crate::tensor::DType;

/// What a kernel's text takes.
#[derive(Debug)]
struct Takes {
    threads: u32,
    workgroup_memory: u32,
    f16: bool,
    matrices: bool,
    /// Of a subgroup, if it has subgroup operations or cooperative matrices.
    lanes: Option<u32>,
}

impl Takes {
    fn of(module: &Module) -> Self {
        let everything = Capabilities::all();
        let needs = |one| Validator::new(ValidationFlags::all(), everything - one).validate(module).is_err();
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let shared = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
        let matrices = needs(Capabilities::COOPERATIVE_MATRIX);
        Self {
            threads: module.entry_points[0].workgroup_size.iter().product(),
            workgroup_memory: shared.map(|(_, v)| layouter[v.ty].size).sum(),
            f16: needs(Capabilities::SHADER_FLOAT16),
            matrices,
            lanes: (matrices || needs(Capabilities::SUBGROUP)).then(|| lanes(module)),
        }
    }

    fn run_on(&self, caps: &Caps) -> bool {
        let lanes = self.lanes.is_none_or(|lanes| match (caps.subgroup_size(), caps.subgroups) {
            (Some(size), _) if self.matrices => size == lanes,
            (Some(size), _) => size >= lanes,
            (None, Some([least, _])) => !self.matrices && least >= lanes,
            (None, None) => false,
        });
        let types = (caps.f16 || !self.f16) && (!self.matrices || !caps.coop_matrix.is_empty());
        let room = self.threads <= caps.max_invocations && self.workgroup_memory <= caps.workgroup_memory;
        lanes && types && room
    }
}

/// For how many threads a subgroup the text is written: its constant LANES.
fn lanes(module: &Module) -> u32 {
    let (_, constant) = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some("LANES")).unwrap();
    match module.global_expressions[constant.init] {
        Expression::Literal(Literal::U32(lanes)) => lanes,
        ref other => panic!("LANES is {other:?}"),
    }
}

#[test]
fn no_variant_is_offered_that_its_own_text_cannot_run_on() {
    let sources = Sources::default();
    let mut known: HashMap<String, Takes> = HashMap::new();
    let mut with_lanes = 0;
    let cases: Vec<_> = TABLE.iter().flat_map(|row| row.cases()).collect();
    for (device, act) in
        Caps::made_up().into_iter().flat_map(|device| [DType::F32, DType::F16].map(|act| (device.clone(), act)))
    {
        let storage = Storage { act, weight: act };
        let caps = device.storing(act, act);
        for case in &cases {
            let types = case.types();
            let dialect = Dialect::of(storage, &types, &case.op.output(&types).unwrap(), caps.native_f16());
            for Variant { name, launch } in case.variants(&caps).unwrap_or_default() {
                let key = format!("{:?} {:?} {:?} {:?}", launch.shader, launch.core, launch.constants, dialect);
                let takes = known.entry(key).or_insert_with(|| {
                    let dialect = dialect.launching(&launch);
                    let source = sources.of_launch(&launch, dialect).unwrap();
                    Takes::of(&prepare(&source, &launch, dialect.native_f16).unwrap().module)
                });
                assert!(takes.run_on(&caps), "{} {name} takes {takes:?}, offered to {caps:?}", case.name());
                with_lanes += usize::from(takes.lanes.is_some());
            }
        }
    }
    assert!(with_lanes > 0, "no kernel with subgroup operations was offered");
}
