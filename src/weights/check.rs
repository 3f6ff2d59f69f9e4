//! Whether a file's tensors are those that a network wants.

use std::collections::HashSet;

use crate::error::{Error, Result, counted, ten};
use crate::tensor::{Shape, Weights};

/// Compares the weights with every name and shape (PyTorch's order of dimensions) that the component's network has.
/// A matrix may be stored as a 1x1 convolution and the other way round, and so may a matrix of one column as a vector.
///
/// # Errors
/// One error with all that is missing, misshapen and left over.
pub fn check(weights: &dyn Weights, wanted: &[(String, Shape)]) -> Result<()> {
    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    for (name, shape) in wanted {
        match weights.shape(name) {
            None => missing.push(name.clone()),
            Some(found) if same_but_for_ones(found.dims(), shape.dims()) => {}
            Some(found) => misshapen.push(format!("{name} is {found}, not {shape}")),
        }
    }
    let names: HashSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    let mut extra = weights.names();
    extra.retain(|name| !names.contains(name.as_str()) && !is_harmless(name));
    extra.sort();

    let faults = [(missing, "missing"), (misshapen, "of another shape"), (extra, "too many")];
    let faults = faults.iter().filter(|(names, _)| !names.is_empty());
    let found: Vec<_> =
        faults.map(|(names, fault)| format!("{} {fault}: {}", counted(names.len(), "tensor"), ten(names))).collect();
    if found.is_empty() {
        return Ok(());
    }
    let what = format!("{}; is the file whole, and of this model?", found.join("; "));
    Err(Error::weights(weights.place(), what))
}

fn same_but_for_ones(found: &[usize], wanted: &[usize]) -> bool {
    let is_longer = |long: &[usize], short: &[usize]| matches!(long.strip_prefix(short), Some(&[1, 1] | &[1]));
    found == wanted || is_longer(found, wanted) || is_longer(wanted, found)
}

/// What files carry beside a network's parameters: a buffer that counts positions, and what only training used: the
/// scale of CLIP's loss, and the layer after LDMBert.
pub(super) fn is_harmless(name: &str) -> bool {
    name.ends_with("position_ids") || name.ends_with("logit_scale") || name.starts_with("to_logits.")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use super::*;
    use crate::tensor::{DType, RawTensor};

    struct Given(BTreeMap<&'static str, (Vec<usize>, f32)>);

    impl Weights for Given {
        fn place(&self) -> String {
            "unet".into()
        }

        fn get(&self, name: &str) -> Option<RawTensor<'_>> {
            let (dims, value) = self.0.get(name)?;
            let shape = Shape::new(dims.clone());
            let bytes = Cow::Owned(value.to_le_bytes().repeat(shape.len()));
            Some(RawTensor { dtype: DType::F32, shape, bytes })
        }

        fn names(&self) -> Vec<String> {
            self.0.keys().map(|name| name.to_string()).collect()
        }
    }

    fn given(tensors: &[(&'static str, &[usize])]) -> Given {
        Given(tensors.iter().map(|(name, dims)| (*name, (dims.to_vec(), 1.0))).collect())
    }

    fn wanted(tensors: &[(&str, &[usize])]) -> Vec<(String, Shape)> {
        tensors.iter().map(|(name, dims)| (name.to_string(), Shape::new(*dims))).collect()
    }

    #[test]
    fn what_a_network_wants_passes() {
        let weights = given(&[("a", &[2, 3]), ("b", &[4, 4, 1, 1]), ("c", &[5, 5]), ("e.position_ids", &[1, 77])]);
        check(&weights, &wanted(&[("a", &[2, 3]), ("b", &[4, 4]), ("c", &[5, 5, 1, 1])])).unwrap();
    }

    #[test]
    fn missing_misshapen_and_extra_come_in_one_error() {
        let weights = given(&[("a", &[2, 3]), ("b", &[4, 3, 1, 1]), ("x", &[1])]);
        let error = check(&weights, &wanted(&[("a", &[3, 2]), ("b", &[4, 3]), ("c", &[1]), ("d", &[1])])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unet: 2 tensors missing: c, d; 1 tensor of another shape: a is [2, 3], not [3, 2]; 1 tensor too many: x; \
             is the file whole, and of this model?"
        );
    }

    #[test]
    fn a_long_list_is_cut_at_ten() {
        let many: Vec<_> = (0..14).map(|i| (format!("t{i:02}"), Shape::from([1]))).collect();
        let text = check(&given(&[]), &many).unwrap_err().to_string();
        assert!(text.contains("14 tensors missing: t00,") && text.contains("t09 and 4 more"), "{text}");
    }
}
