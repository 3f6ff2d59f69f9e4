//! How long networks should take, in words.

use std::fmt::Write as _;

use super::{percent, seconds};
use crate::lab::predict::Predicted;

/// One network, in a line.
pub(super) fn line(predicted: &Predicted) -> String {
    let Predicted { seconds: all, arithmetic, memory, launches, source, .. } = predicted;
    let [arithmetic, memory, launches] = [arithmetic, memory, launches].map(|part| percent(part / all));
    format!("{} {source} (arithmetic {arithmetic}, memory {memory}, launches {launches})", seconds(*all))
}

/// A row for each card, by its name, and a column for each network.
pub fn table(cards: &[(&str, Vec<Predicted>)]) -> String {
    let mut out = String::from("Predicted from data sheets and compilers, not measured: seconds of one run\n");
    let Some((_, networks)) = cards.first() else { return out };
    out += &" ".repeat(14);
    for network in networks {
        let _ = write!(out, "{:>16}", network.network);
    }
    for (card, networks) in cards {
        let _ = write!(out, "\n{card:14}");
        for network in networks {
            let _ = write!(out, "{:>16}", seconds(network.seconds));
        }
    }
    out + "\n"
}
