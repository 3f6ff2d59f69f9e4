//! The weights of several networks that run as one graph: a UNet with its ControlNets.

use crate::tensor::{RawTensor, Weights};

/// The weights of `own` under their names, and those of each of `others` under a path and theirs.
pub struct Bundle<W, O> {
    own: W,
    others: Vec<(String, O)>,
}

impl<W: Weights, O: Weights> Bundle<W, O> {
    /// `others` by their paths, without the dot at the end. No tensor of `own` has a name that begins so.
    pub fn new(own: W, others: Vec<(String, O)>) -> Self {
        Self { own, others }
    }
}

impl<W: Weights, O: Weights> Weights for Bundle<W, O> {
    fn place(&self) -> String {
        let others = self.others.iter().map(|(path, other)| format!("{} ({path})", other.place()));
        std::iter::once(self.own.place()).chain(others).collect::<Vec<_>>().join(", ")
    }

    fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let (weights, name) = self.passed_on(name)?;
        weights.get(name)
    }

    fn passed_on<'n>(&self, name: &'n str) -> Option<(&dyn Weights, &'n str)> {
        let within = |path: &str| name.strip_prefix(path)?.strip_prefix('.');
        let other = self.others.iter().find_map(|(path, other)| Some((other, within(path)?)));
        Some(other.map_or((&self.own, name), |(other, name)| (other, name)))
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.own.names();
        for (path, other) in &self.others {
            names.extend(other.names().iter().map(|name| format!("{path}.{name}")));
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{BlockLayout, Quantized, Shape};
    use crate::weights::Synthetic;

    /// Two networks with a matrix of one name, kept in blocks of so many bits.
    struct InBlocks(usize);

    impl Weights for InBlocks {
        fn place(&self) -> String {
            "blocks".into()
        }

        fn get(&self, _name: &str) -> Option<RawTensor<'_>> {
            None
        }

        fn names(&self) -> Vec<String> {
            vec!["w".into()]
        }

        fn layout(&self, name: &str) -> Option<BlockLayout> {
            (name == "w").then_some(BlockLayout { bits: self.0, block: 32, minimum: false })
        }

        fn quantized(&self, name: &str) -> Option<Quantized> {
            let (quants, scales, minima) = (vec![0], vec![1.0], Vec::new());
            Some(Quantized { layout: self.layout(name)?, quants, scales, minima })
        }
    }

    #[test]
    fn blocks_stay_blocks() {
        let bundle = Bundle::new(InBlocks(4), vec![("control.0".into(), InBlocks(8))]);
        for (name, bits) in [("w", Some(4)), ("control.0.w", Some(8)), ("control.0.x", None)] {
            assert_eq!(bundle.layout(name).map(|layout| layout.bits), bits);
            assert_eq!(bundle.quantized(name).map(|tensor| tensor.layout.bits), bits);
        }
    }

    fn of(place: &str, name: &str, len: usize) -> Synthetic {
        Synthetic::new(place, [(name.to_string(), Shape::from([len]))])
    }

    #[test]
    fn each_networks_tensors_are_under_its_own_path() {
        let others = vec![("control.0".into(), of("a", "w", 2)), ("control.10".into(), of("b", "w", 3))];
        let bundle = Bundle::new(of("unet", "w", 1), others);
        let len = |name: &str| bundle.shape(name).map(|shape| shape.len());
        assert_eq!([len("w"), len("control.0.w"), len("control.10.w")], [Some(1), Some(2), Some(3)]);
        assert_eq!([len("control.1.w"), len("control.0w"), len("control.0.x")], [None; 3]);
        assert_eq!(bundle.get("control.10.w").unwrap().shape.len(), 3);
        assert_eq!(bundle.names(), ["w", "control.0.w", "control.10.w"]);
        assert_eq!(bundle.place(), "unet, a (control.0), b (control.10)");
    }
}
