//! What one command draws: prompts one after the other, or a sheet of them.

use super::grid::Grid;
use super::prompts::{Line, Prompts};

/// What is drawn by one command.
pub(super) enum Work {
    Prompts(Prompts),
    Grid(Vec<Line>, Grid),
}

impl Work {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Prompts(prompts) => prompts.count(),
            Self::Grid(lines, _) => lines.len(),
        }
    }

    pub(super) fn lines(&self) -> Box<dyn Iterator<Item = Line> + '_> {
        match self {
            Self::Prompts(prompts) => Box::new(prompts.iter()),
            Self::Grid(lines, _) => Box::new(lines.iter().cloned()),
        }
    }

    /// The sheet that it is, if it is one.
    pub(super) fn grid(&self) -> Option<&Grid> {
        match self {
            Self::Prompts(_) => None,
            Self::Grid(_, grid) => Some(grid),
        }
    }
}
