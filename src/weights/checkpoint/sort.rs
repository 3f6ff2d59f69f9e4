//! Which network each tensor of a file belongs to, and what that calls it.

use super::keys::{self, Layout};
use super::refuse;
use crate::weights::family::Families;
use crate::weights::names::canonical;
use crate::weights::view::View;

/// The tensors of a file, or of several that belong together.
pub struct Sorted {
    /// Those that networks may ask for.
    pub tensors: Vec<Named>,
    /// How many are left out knowingly.
    pub left_out: usize,
    /// Names that belong to no network, and are not known.
    pub unknown: Vec<String>,
}

/// A tensor that a network may ask for.
pub struct Named {
    pub component: &'static str,
    /// What the network calls it.
    pub name: String,
    /// What the file calls it.
    pub stored: String,
    pub view: View,
}

/// Sorts names: of a file with any networks or, where they are `only` one's, of that one's files, which may also be
/// those of a whole model. Of a network alone they may begin without saying whose they are.
pub fn sort(mut left: Vec<&str>, families: &Families, only: Option<&str>) -> Sorted {
    let wanted = |component: &str| only.is_none_or(|only| only == component);
    let all = families.components();
    let parts = all.flat_map(|c| c.parts.iter().map(move |(start, layout)| (*start, c.name, *layout)));
    let parts: Vec<(&str, &'static str, Layout)> = parts.collect();
    let in_parts = left.iter().any(|name| parts.iter().any(|(start, c, _)| wanted(c) && name.starts_with(start)));
    let all = families.components().filter(|c| !in_parts && wanted(c.name));
    let mut alone = all.flat_map(|c| c.alone.iter().map(move |(marker, layout)| (*marker, c.name, *layout)));
    let alone = alone.find(|(marker, ..)| left.contains(marker));
    let alone = alone.map(|(_, component, layout)| vec![("", component, layout)]);
    let (mut tensors, mut left_out) = (Vec::new(), 0);
    for (start, component, layout) in alone.unwrap_or(parts) {
        let (own, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|name| name.starts_with(start));
        left = others;
        let own = own.iter().filter_map(|name| name.strip_prefix(start));
        let (leftovers, own): (Vec<_>, Vec<_>) = own.partition(|name| refuse::is_leftover(name));
        left_out += leftovers.len();
        for (name, stored, view) in keys::tensors(layout, &own) {
            let name = canonical(component, &name).into_owned();
            tensors.push(Named { component, name, stored: format!("{start}{stored}"), view });
        }
    }
    let is_leftover = |name: &&str| refuse::is_leftover(name) || families.is_leftover(name);
    let (leftovers, unknown): (Vec<_>, Vec<_>) = left.into_iter().partition(is_leftover);
    left_out += leftovers.len();
    Sorted { tensors, left_out, unknown: unknown.into_iter().map(String::from).collect() }
}
