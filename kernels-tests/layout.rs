//! Layouts in SPIR-V. naga gives one to every array and struct; drivers ignore it outside of buffers, wgpu tells the
//! validation layer to, and spirv-val refuses it since 2025 (gfx-rs/wgpu#7696). Without those there is one text for
//! all.

use std::collections::BTreeSet;

/// The instructions of a module begin behind so many words.
const HEADER: usize = 5;

const TYPE_ARRAY: u32 = 28;
const TYPE_RUNTIME_ARRAY: u32 = 29;
const TYPE_STRUCT: u32 = 30;
const TYPE_POINTER: u32 = 32;
const DECORATE: u32 = 71;
const MEMBER_DECORATE: u32 = 72;

/// Storage classes.
const UNIFORM: u32 = 2;
const STORAGE_BUFFER: u32 = 12;

/// ColMajor, ArrayStride, MatrixStride, Offset.
const LAYOUT: [u32; 4] = [5, 6, 7, 35];

/// The module with the layouts of buffers' types alone. What is not a module stays as it is, for the validator to
/// refuse.
pub fn only_in_buffers(words: &[u32]) -> Vec<u32> {
    let Some(instructions) = instructions(words) else { return words.to_vec() };
    let mut in_buffers = BTreeSet::new();
    // A type stands behind those that it is made of.
    for i in instructions.iter().rev() {
        match (i[0] & 0xffff, &i[1..]) {
            (TYPE_POINTER, [_, UNIFORM | STORAGE_BUFFER, pointee]) => drop(in_buffers.insert(*pointee)),
            (TYPE_ARRAY | TYPE_RUNTIME_ARRAY, [id, element, ..]) if in_buffers.contains(id) => {
                in_buffers.insert(*element);
            }
            (TYPE_STRUCT, [id, members @ ..]) if in_buffers.contains(id) => in_buffers.extend(members),
            _ => {}
        }
    }
    let superfluous = |i: &&&[u32]| {
        let what = match (i[0] & 0xffff, &i[1..]) {
            (DECORATE, [ty, what, ..]) | (MEMBER_DECORATE, [ty, _, what, ..]) => Some((ty, what)),
            _ => None,
        };
        what.is_some_and(|(ty, what)| LAYOUT.contains(what) && !in_buffers.contains(ty))
    };
    let kept = instructions.iter().filter(|i| !superfluous(i)).copied().flatten();
    words[..HEADER].iter().chain(kept).copied().collect()
}

/// Each with the first word, which holds its length and its opcode; `None` if the module ends within one.
fn instructions(words: &[u32]) -> Option<Vec<&[u32]>> {
    let mut rest = words.get(HEADER..)?;
    let mut instructions = Vec::new();
    while let Some(first) = rest.first() {
        let (instruction, behind) = rest.split_at_checked((first >> 16).max(1) as usize)?;
        instructions.push(instruction);
        rest = behind;
    }
    Some(instructions)
}
