//! What naga leaves out of SPIR-V for cooperative matrices. They need Vulkan's memory model, and there a barrier makes
//! nothing visible unless it says so, and no access takes part unless it is marked as shared (gfx-rs/wgpu#8805). Every
//! access to workgroup memory is marked here, and every barrier for it told to make it available and visible.

use std::collections::BTreeSet;

/// The instructions of a module begin behind so many words, of which this one is the first free id.
const HEADER: usize = 5;
const BOUND: usize = 3;

/// Opcodes.
const TYPE_INT: u32 = 21;
const TYPE_POINTER: u32 = 32;
const CONSTANT: u32 = 43;
const FUNCTION: u32 = 54;
const VARIABLE: u32 = 59;
const LOAD: u32 = 61;
const STORE: u32 = 62;
const ACCESS_CHAIN: u32 = 65;
const CONTROL_BARRIER: u32 = 224;
const MATRIX_LOAD: u32 = 4457;
const MATRIX_STORE: u32 = 4458;

/// A storage class.
const WORKGROUP: u32 = 4;
/// Memory semantics: acquire, release, and of workgroup memory; and what makes it available and visible.
const SYNCHRONISE: u32 = 0x8 | 0x100;
const SYNCHRONISE_VISIBLY: u32 = SYNCHRONISE | 0x2000 | 0x4000;
/// A memory operand: others may access it as well.
const NON_PRIVATE: u32 = 0x20;

/// A module of naga's, with workgroup memory shared as WGSL means it.
pub(super) fn with_visible_workgroup_memory(words: &[u32]) -> Vec<u32> {
    let mut header = words[..HEADER].to_vec();
    let semantics = header[BOUND];
    header[BOUND] += 1;
    let mut ids = Ids::default();
    let mut out = header;
    let mut declared = false;
    for instruction in instructions(&words[HEADER..]) {
        ids.see(instruction);
        let (opcode, operands) = (instruction[0] & 0xffff, &instruction[1..]);
        if opcode == FUNCTION && !declared {
            declared = true;
            push(&mut out, CONSTANT, &[ids.uint, semantics, SYNCHRONISE_VISIBLY]);
        }
        match (opcode, operands) {
            (CONTROL_BARRIER, [execution, memory, old]) if ids.synchronise == Some(*old) => {
                push(&mut out, opcode, &[*execution, *memory, semantics]);
            }
            // naga writes these without memory operands, which come last.
            (LOAD | MATRIX_LOAD, [_, _, pointer, ..]) | (STORE | MATRIX_STORE, [pointer, ..])
                if ids.shared.contains(pointer) =>
            {
                push(&mut out, opcode, &[operands, &[NON_PRIVATE]].concat());
            }
            _ => out.extend(instruction),
        }
    }
    out
}

/// Of a module so far.
#[derive(Default)]
struct Ids {
    /// The type u32.
    uint: u32,
    /// The constant that naga's workgroup barriers have for their semantics.
    synchronise: Option<u32>,
    /// Types of pointers to workgroup memory.
    pointers: BTreeSet<u32>,
    /// Pointers to it.
    shared: BTreeSet<u32>,
}

impl Ids {
    fn see(&mut self, instruction: &[u32]) {
        match (instruction[0] & 0xffff, &instruction[1..]) {
            (TYPE_INT, [id, 32, 0]) => self.uint = *id,
            (TYPE_POINTER, [id, WORKGROUP, _]) => drop(self.pointers.insert(*id)),
            (CONSTANT, [ty, id, SYNCHRONISE]) if *ty == self.uint => self.synchronise = Some(*id),
            (VARIABLE | ACCESS_CHAIN, [ty, id, ..]) if self.pointers.contains(ty) => drop(self.shared.insert(*id)),
            _ => {}
        }
    }
}

fn push(out: &mut Vec<u32>, opcode: u32, operands: &[u32]) {
    out.push((operands.len() as u32 + 1) << 16 | opcode);
    out.extend(operands);
}

/// Each with its first word, which holds its length and its opcode.
fn instructions(mut rest: &[u32]) -> impl Iterator<Item = &[u32]> {
    std::iter::from_fn(move || {
        let (instruction, behind) = rest.split_at_checked((rest.first()? >> 16).max(1) as usize)?;
        rest = behind;
        Some(instruction)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::Caps;
    use crate::gpu::shader::{Dialect, Sources, prepare, spirv};
    use crate::ops::product::matmul;
    use crate::ops::{Case, attention};
    use crate::tensor::DType;

    /// The SPIR-V of a kernel of cooperative matrices, as words.
    fn module(cases: Vec<Case>) -> Vec<u32> {
        let caps = Caps::kinds(true, DType::F16, DType::F16).swap_remove(2);
        let dialect = Dialect { elem: DType::F16, weight: DType::F16, native_f16: true, matrix: None };
        let variants = cases.into_iter().filter_map(|case| case.variants(&caps).ok());
        let launch = variants.flatten().map(|v| v.launch).find(|launch| launch.matrix == Some(16)).unwrap();
        let source = Sources::default().of_launch(&launch, dialect).unwrap();
        bytemuck::pod_collect_to_vec(&spirv(&prepare(&source, &launch, true).unwrap()).unwrap())
    }

    #[test]
    fn every_barrier_and_every_access_of_workgroup_memory_is_marked() {
        for (cases, wanted) in [(matmul::cases(), 4), (attention::cases(), 13)] {
            let (words, mut ids) = (module(cases), Ids::default());
            let (mut barriers, mut accesses) = (0, 0);
            let mut visible = None;
            for instruction in instructions(&words[HEADER..]) {
                ids.see(instruction);
                match (instruction[0] & 0xffff, &instruction[1..]) {
                    (CONSTANT, [_, id, SYNCHRONISE_VISIBLY]) => visible = Some(*id),
                    (CONTROL_BARRIER, [.., semantics]) => {
                        barriers += 1;
                        assert_eq!(Some(*semantics), visible);
                    }
                    (LOAD | MATRIX_LOAD, [_, _, pointer, .., last]) | (STORE | MATRIX_STORE, [pointer, .., last])
                        if ids.shared.contains(pointer) =>
                    {
                        accesses += 1;
                        assert_eq!(*last, NON_PRIVATE);
                    }
                    (LOAD, [_, _, pointer]) => assert!(!ids.shared.contains(pointer), "a load without a mark"),
                    _ => {}
                }
            }
            assert_eq!((barriers, accesses > 8), (wanted, true), "{accesses} accesses");
        }
    }
}
