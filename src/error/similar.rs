//! What somebody may have meant who typed a name that is not known.

/// Names that share less than this are not alike, by Jaro's measure from 0 to 1.
const ALIKE: f64 = 0.8;

/// What to say of names that are known: the one that is most like `name`, or all where none is.
pub fn instead<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    did_you_mean(name, known.iter().copied()).unwrap_or_else(|| format!("known are {}", known.join(", ")))
}

/// Whether the known name that is most like `name` was meant, if one is like it.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let alike = |known: &str| strsim::jaro(&name.to_lowercase(), &known.to_lowercase());
    let best = known.into_iter().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(best) >= ALIKE).then(|| format!("did you mean {best}?"))
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
