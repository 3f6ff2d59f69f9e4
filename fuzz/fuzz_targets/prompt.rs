//! A prompt: what it says from step to step, its weights, its breaks, and the LoRA files that it names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ornstein::prompt::chunks::{Special, Tokens, divide};
use ornstein::prompt::{Segment, loras, parse, schedule};

const POSITIONS: usize = 10;

fuzz_target!(|text: &str| {
    if let Ok((rest, tags)) = loras::take_tags(text) {
        assert_eq!(loras::has_tags(text), !tags.is_empty());
        assert!(rest.len() <= text.len());
    }
    let schedule = schedule::schedule(text, 20);
    assert!(schedule.is_sorted_by(|(a, _), (b, _)| a < b) && schedule.last().is_some_and(|(end, _)| *end == 20));
    schedule::unread(text);
    let parts = parse(text);
    assert!(!parts.is_empty());
    // Every byte a token; those of a word that begins with `&` belong together, as an embedding's vectors do.
    let tokens = parts.iter().map(|part| match part {
        Segment::Text(text, weight) => {
            let words = text.split_inclusive(' ').flat_map(|word| match word.starts_with('&') {
                true => vec![word.bytes().take(POSITIONS - 2).map(u32::from).collect()],
                false => word.bytes().map(|byte| vec![u32::from(byte)]).collect::<Vec<_>>(),
            });
            Tokens::Words(words.collect(), *weight as f32)
        }
        Segment::Break => Tokens::Break,
    });
    let special = Special { start: 1000, end: 1001, pad: 1002, comma: Some(u32::from(b',')) };
    let chunks = divide(&tokens.collect::<Vec<_>>(), &special, POSITIONS);
    assert!(!chunks.is_empty());
    for chunk in chunks {
        assert_eq!([chunk.ids.len(), chunk.weights.len()], [POSITIONS; 2]);
    }
});
