//! Tokens of any number in chunks that a text encoder takes, as AUTOMATIC1111's web UI divides them: 75 tokens between
//! a start and an end token. Where a chunk is full within 20 tokens after a comma, what follows the comma moves to the
//! next.

/// The web UI's setting "Prompt word wrap length limit", in tokens.
const WRAP: usize = 20;

/// A [`Segment`](super::Segment) in tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Tokens {
    /// Words of one weight. What is not to be parted is one word: a token, or all the vectors of an embedding.
    Words(Vec<Vec<u32>>, f32),
    /// What follows begins a new chunk.
    Break,
}

/// The tokens with a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Special {
    /// In front of every chunk.
    pub start: u32,
    /// Behind a chunk's words.
    pub end: u32,
    /// Behind that, up to the chunk's end.
    pub pad: u32,
    /// The comma, where the vocabulary has one: a chunk that is soon full behind one ends there.
    pub comma: Option<u32>,
}

/// What a text encoder sees at once: as many ids as it has positions, and each one's weight.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chunk {
    /// Tokens, one for each position.
    pub ids: Vec<u32>,
    /// What each token's embedding is multiplied with.
    pub weights: Vec<f32>,
}

impl Chunk {
    /// Start token, tokens, end token, padding: `positions` in all.
    fn close(tokens: Vec<(u32, f32)>, special: &Special, positions: usize) -> Self {
        let ends = std::iter::once((special.end, 1.0)).chain(std::iter::repeat((special.pad, 1.0)));
        let all = std::iter::once((special.start, 1.0)).chain(tokens).chain(ends);
        let (ids, weights) = all.take(positions).unzip();
        Self { ids, weights }
    }

    /// One without words, for a prompt that is shorter than another.
    pub fn empty(special: &Special, positions: usize) -> Self {
        Self::close(Vec::new(), special, positions)
    }

    /// Whether every token counts as it is.
    pub fn is_plain(&self) -> bool {
        self.weights.iter().all(|weight| *weight == 1.0)
    }
}

/// Divides a prompt, into at least one chunk. No word may be longer than `positions - 2`.
pub fn divide(parts: &[Tokens], special: &Special, positions: usize) -> Vec<Chunk> {
    let length = positions - 2;
    let mut full: Vec<Vec<(u32, f32)>> = Vec::new();
    let mut open: Vec<(u32, f32)> = Vec::new();
    // The place of the last comma in the open chunk.
    let mut comma = None;
    for part in parts {
        let Tokens::Words(words, weight) = part else {
            full.push(std::mem::take(&mut open));
            comma = None;
            continue;
        };
        for word in words {
            if special.comma.is_some_and(|comma| *word == [comma]) {
                comma = Some(open.len());
            } else if let Some(at) = comma.filter(|at| open.len() == length && length - at <= WRAP) {
                let moved = open.split_off(at + 1);
                full.push(std::mem::replace(&mut open, moved));
                comma = None;
            }
            if open.len() + word.len() > length {
                full.push(std::mem::take(&mut open));
                comma = None;
            }
            open.extend(word.iter().map(|id| (*id, *weight)));
        }
    }
    if !open.is_empty() || full.is_empty() {
        full.push(open);
    }
    full.into_iter().map(|tokens| Chunk::close(tokens, special, positions)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMA: u32 = 7;
    const SPECIAL: Special = Special { start: 100, end: 101, pad: 0, comma: Some(COMMA) };

    /// The words of each chunk, without start, end and padding.
    fn divided(parts: &[Tokens], positions: usize) -> Vec<Vec<u32>> {
        let chunks = divide(parts, &SPECIAL, positions);
        assert!(chunks.iter().all(|chunk| chunk.ids.len() == positions && chunk.weights.len() == positions));
        let words = |chunk: Chunk| chunk.ids[1..].iter().copied().take_while(|id| *id != SPECIAL.end).collect();
        chunks.into_iter().map(words).collect()
    }

    fn words(ids: impl IntoIterator<Item = u32>) -> Tokens {
        Tokens::Words(ids.into_iter().map(|id| vec![id]).collect(), 1.0)
    }

    #[test]
    fn a_chunk_is_words_between_start_and_end_and_padding() {
        let parts = [Tokens::Words(vec![vec![1], vec![2]], 1.5), words([3])];
        let chunk = &divide(&parts, &SPECIAL, 8)[0];
        assert_eq!(chunk.ids, [100, 1, 2, 3, 101, 0, 0, 0]);
        assert_eq!(chunk.weights, [1.0, 1.5, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert!(!chunk.is_plain());
        assert_eq!(divide(&[words([])], &SPECIAL, 4), [Chunk::empty(&SPECIAL, 4)]);
    }

    #[test]
    fn seventy_five_words_fill_a_chunk_and_one_more_starts_another() {
        assert_eq!(divided(&[words(1000..1075)], 77), [(1000..1075).collect::<Vec<_>>()]);
        assert_eq!(divided(&[words(1000..1076)], 77), [(1000..1075).collect::<Vec<_>>(), vec![1075]]);
        assert_eq!(divided(&[words(1000..1150)], 77).len(), 2);
    }

    #[test]
    fn what_follows_a_near_comma_moves_to_the_next_chunk() {
        // The comma is the 56th of 75 words, 20 before the end, and then the 55th.
        let with_comma = |at: u32| divided(&[words((0..80).map(|i| if i == at { COMMA } else { 1000 + i }))], 77);
        assert_eq!(with_comma(55).iter().map(Vec::len).collect::<Vec<_>>(), [56, 24]);
        assert_eq!(with_comma(54).iter().map(Vec::len).collect::<Vec<_>>(), [75, 5]);
    }

    #[test]
    fn a_comma_that_finds_its_chunk_full_starts_the_next() {
        let chunks = divided(&[words((1000..1075).chain([COMMA, 1]))], 77);
        assert_eq!(chunks[1], [COMMA, 1]);
    }

    #[test]
    fn an_embedding_is_not_parted() {
        let word = Tokens::Words(vec![vec![1], vec![2], vec![3, 4, 5]], 1.0);
        assert_eq!(divided(&[word], 6), [vec![1, 2], vec![3, 4, 5]]);
    }

    #[test]
    fn a_break_closes_a_chunk_even_an_empty_one() {
        assert_eq!(divided(&[words([1]), Tokens::Break, words([2])], 8), [[1], [2]]);
        assert_eq!(divided(&[words([1]), Tokens::Break, Tokens::Break, words([2])], 8), [vec![1], vec![], vec![2]]);
        assert_eq!(divided(&[words([1]), Tokens::Break], 8), [[1]]);
    }
}
