//! The brackets of a prompt, and what the texts inside of them weigh, in a time in proportion to the prompt's length.

use std::ops::Range;

/// The brackets of one kind, which are nested; those of the other kind may cross them.
#[derive(Default)]
pub(super) struct Brackets {
    /// The segments before which brackets were opened that are not closed yet.
    pub open: Vec<usize>,
    /// In the order in which they were closed.
    pub closed: Vec<Bracket>,
}

/// A bracket that is closed.
pub(super) struct Bracket {
    pub segments: Range<usize>,
    pub factor: f64,
    /// Which of all it was to be closed.
    pub nth: usize,
    /// Of all brackets of its kind around it.
    pub outer: Product,
}

/// The product of any number of factors: its sign and its logarithm, which neither overflow nor vanish.
#[derive(Clone, Copy)]
pub(super) struct Product(f64, f64);

impl Product {
    pub const ONE: Self = Self(1.0, 0.0);

    /// Of the factors of all these brackets.
    fn of(around: &[Bracket]) -> Self {
        let Some(Bracket { factor, outer: Self(sign, log), .. }) = around.last() else { return Self::ONE };
        Self(sign * factor.signum(), log + factor.abs().ln())
    }
}

impl Brackets {
    /// Makes `around` the brackets around the part `index`, from the outermost to the innermost, where it is those
    /// around the next part.
    pub fn step_back(&mut self, index: usize, around: &mut Vec<Bracket>) {
        loop {
            while around.pop_if(|bracket| bracket.segments.start > index).is_some() {}
            let Some(bracket) = self.closed.pop_if(|bracket| bracket.segments.end > index) else { return };
            around.push(Bracket { outer: Product::of(around), ..bracket });
        }
    }
}

/// The weight of a part with these brackets around it. Factors are multiplied as the web UI does it, in the order in
/// which brackets close, since neighbours of exactly one weight are one text; those beyond many of them at once, so
/// that any number takes no time.
pub(super) fn product<'a>(mut round: &'a [Bracket], mut square: &'a [Bracket]) -> f64 {
    const MANY: usize = 64;
    let mut weight = 1.0;
    for _ in 0..MANY {
        let nth = |brackets: &[Bracket]| brackets.last().map_or(usize::MAX, |bracket| bracket.nth);
        let innermost = if nth(round) < nth(square) { &mut round } else { &mut square };
        let Some((bracket, rest)) = innermost.split_last() else { return weight };
        weight *= bracket.factor;
        *innermost = rest;
    }
    let (Product(round, first), Product(square, second)) = (Product::of(round), Product::of(square));
    weight * round * square * (first + second).exp()
}
