//! What somebody may have meant who typed a name that is not known.

/// Names that share less than this are not alike, by Jaro's measure from 0 to 1.
const ALIKE: f64 = 0.8;

/// What to say of names that are known: the one that is most like `name`, or all where none is.
pub fn instead<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let alike = |known: &&str| strsim::jaro(&name.to_lowercase(), &known.to_lowercase());
    match known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))) {
        Some(best) if alike(best) >= ALIKE => format!("did you mean {best}?"),
        _ => format!("known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_names_what_was_meant_and_something_else_all() {
        let known = ["euler", "euler-a", "sdxl-checkpoint"];
        for (name, meant) in [("eular", "euler"), ("sdxl-chekpoint", "sdxl-checkpoint"), ("EULER A", "euler-a")] {
            assert_eq!(instead(name, known), format!("did you mean {meant}?"));
        }
        assert_eq!(instead("castle", known), "known are euler, euler-a, sdxl-checkpoint");
    }
}
